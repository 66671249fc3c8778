"""What is printed of a federation."""

from collections.abc import Mapping
from typing import Any


def federated_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Clients, rounds, what was sent, and how even the clients' scores are; empty without a federation."""
    if not found:
        return []
    rounds, fairness, metric = found["rounds"], found["fairness"], found["metric"]
    sent = found["bytes"]
    dropped, rejected = (sum(len(row[key]) for row in rounds) for key in ("dropped", "rejected"))
    text = f"federated={found['method']}: {len(found['clients'])} clients, {len(rounds)} rounds, "
    text += f"{sent['up'] / 2**20:,.2f} MiB up, {sent['down'] / 2**20:,.2f} MiB down"
    text += f", the network itself {sent['network'] / 2**20:,.2f} MiB before" if sent["network"] else ""
    text += f", {dropped} answers failed" if dropped else ""
    text += f", {rejected} rejected for NaN or infinity" if rejected else ""
    texts = [text]
    if fairness:
        texts.append(
            f"clients, each on its own test samples: {metric} mean {fairness['mean']:.4f}, "
            f"worst {fairness['worst']:.4f}, worst tenth {fairness['worst_decile']:.4f}, "
            f"standard deviation {fairness['std']:.4f}"
        )
    if "everywhere" in fairness:
        texts.append(f"clients, each on all test samples: {metric} mean {fairness['everywhere']:.4f}")
    bad = [one["name"] for one in found["clients"] if one["rejected"]]
    texts += [f"rejected: client {', '.join(bad[:10])}{' and others' if len(bad) > 10 else ''}"] if bad else []
    return [*texts, f"model: {found['model']}"] if found["model"] != "the server's" else texts
