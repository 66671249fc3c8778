"""W&B, online or offline."""

import base64
import io
import netrc
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, get_args
from urllib.parse import urlsplit

from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from graft.errors import GraftError

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

    from graft.report.page import Page
    from graft.report.samples import Sample

WandbMode = Literal["auto", "online", "offline", "disabled"]
WANDB_MODES = get_args(WandbMode)
WANDB_HOSTS = (
    "api.wandb.ai",
    "api.forge.coreweave.com",
)  # old and new name of the public service; one login serves both
WANDB_INIT_TIMEOUT_S = 30.0
# The run folder holds config, commit and versions already; listing packages and asking git cost 0.1 s a job.
WANDB_QUIET: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "save_code": False,
    "disable_code": True,
    "disable_git": True,
    "symlink": False,
    "x_save_requirements": False,
}
MAX_CONFUSION_CELLS = 10_000  # rows that a W&B chart shows


_announced: set[Path] = set()  # folders whose way to W&B has been printed, so that a sweep says it once
_unreachable: set[str] = set()  # servers that did not answer, so that a sweep waits for them once


class WandbSettings(TypedDict):
    """The keys of `logger.wandb`."""

    mode: WandbMode
    project: str | None
    entity: str | None
    notes: str | None
    system_stats: bool


class WandbRun(WandbLogger):
    """Lightning's WandbLogger around a separate run: quiet, named by its folder, and gone after the job.

    The run starts when somebody first asks for it. `info` says where it is.
    """

    def __init__(self, run_dir: Path, *, mode: str, stats: bool, **options: Any) -> None:
        super().__init__(name=options["name"], save_dir=run_dir, project=options["project"])
        self._run_dir = Path(run_dir)
        self._mode = mode
        self._stats = stats
        self._options = options
        self.info: dict[str, Any] | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> "Run":
        """The wandb run, started on first use.

        Raises GraftError where `mode=online` was asked for and W&B cannot be reached.
        """
        if self._experiment is None:
            self._experiment = self._start()
            self._experiment.define_metric("trainer/global_step")
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return cast("Run", self._experiment)

    def _start(self) -> "Run":
        import wandb

        self._run_dir.mkdir(parents=True, exist_ok=True)
        base_url = wandb.setup(wandb.Settings(silent=True)).settings.base_url
        login = has_wandb_login(base_url)
        reason = "W&B cannot be reached" if login else "no login found"
        earlier = wandb_id(self._run_dir)
        run = None
        if self._mode == "online" or (self._mode == "auto" and login and base_url not in _unreachable):
            try:
                run = self._init("online", earlier)
            except wandb.Error as error:
                reason = f"W&B cannot be reached: {str(error).partition(chr(10))[0]}"
                if self._mode == "online":
                    raise GraftError(f"{reason}. Record offline instead: logger.wandb.mode=offline") from error
                _unreachable.add(base_url)
        online = run is not None
        run = run or self._init("offline", earlier)
        folder = Path(run.dir).parent
        self.info = {"id": run.id, "dir": str(folder), "offline": not online, "url": run.url if online else None}
        self._announce(reason)
        return run

    def _init(self, mode: Literal["online", "offline"], earlier: str | None) -> "Run":
        import wandb

        again: dict[str, Any] = {"id": earlier, "resume": "allow"} if earlier else {}
        settings = wandb.Settings(**WANDB_QUIET, x_disable_stats=not self._stats, init_timeout=WANDB_INIT_TIMEOUT_S)
        return wandb.init(
            mode=mode, dir=str(self._run_dir), reinit="create_new", settings=settings, **self._options, **again
        )

    def _announce(self, reason: str) -> None:
        in_sweep = self._options["group"] == self._run_dir.parent.name
        place = self._run_dir.parent if in_sweep else self._run_dir
        if place in _announced:
            return
        _announced.add(place)
        assert self.info is not None
        if not self.info["offline"]:
            print(f"W&B: {self.info['url']}", flush=True)
            return
        why = "" if self._mode == "offline" else f" ({reason})"
        jobs = "/*" if in_sweep else ""
        folders = f"{shlex.quote(str(place))}{jobs}/wandb/offline-run-*"
        print(f"W&B records offline{why}; upload with: wandb sync {folders}", flush=True)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Nothing: the run has carried its whole config from the start."""

    def log_results(self, results: Mapping[str, Any]) -> None:
        """Write `results` (the schema of results.json) into the summary, and its confusion matrices as charts.

        A job that failed before the run started leaves nothing behind.
        """
        if self._experiment is None:
            return
        import wandb

        summary = dict(results.get("metrics", {}))
        for key in ("score", "labels", "selection", "time"):
            summary |= {f"{key}/{k}": v for k, v in (results.get(key) or {}).items()}
        for key, one in (results.get("baselines") or {}).items():
            summary |= {f"baselines/{key}/{name}": value for name, value in one["metrics"].items()}
        parameters = results.get("parameters", {})
        summary |= {f"parameters/{k}": parameters[k] for k in ("total", "trainable") if k in parameters}
        summary |= {k: results[k] for k in ("samples_per_s", "peak_memory_mb") if k in results}
        charts = {}
        for name, confusion in results.get("confusion", {}).items():
            table = wandb.Table(["Actual", "Predicted", "nPredictions"], confusion_rows(**confusion))
            fields: dict[str, Any] = {str(column): column for column in table.columns}
            title = {"title": f"Confusion matrix, {name}"}
            charts[f"{name}/confusion"] = wandb.plot_table("wandb/confusion_matrix/v1", table, fields, title)
        if charts:
            self.experiment.log(charts)
        self.experiment.summary.update({**summary, "run_dir": str(self._run_dir)})

    def log_page(self, page: "Page") -> None:
        """Write the pictures, tables and samples of a run's page, as `report/<name>`."""
        import wandb

        logged: dict[str, Any] = {}
        for section in page.sections:
            for picture in section.pictures:
                image = Image.open(io.BytesIO(picture.png))
                logged[f"report/{picture.name}"] = wandb.Image(image, caption=picture.caption)
            for table in section.tables:
                logged[f"report/{table.name}"] = wandb.Table([*table.header], [[*row] for row in table.rows])
            if section.samples:
                rows = [sample_row(sample) for sample in section.samples]
                logged[f"report/{section.title.lower().replace(' ', '_')}"] = wandb.Table(
                    [*rows[0]], [[*r.values()] for r in rows]
                )
        self.experiment.log(logged)

    def finish(self, ok: bool) -> None:
        """End the run, if it has started; it is marked failed unless `ok`."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if ok else 1)

    def leave_service(self) -> None:
        """Forget W&B's process, which is gone: nothing is asked of it at exit, and the next run starts another."""
        import wandb

        with suppress(Exception):  # it cannot say goodbye to it
            wandb.teardown()


def sample_row(sample: "Sample") -> dict[str, Any]:
    """A sample of a page as cells of a W&B table, with its picture where it has one."""
    import wandb

    image = None
    if sample.image:
        image = wandb.Image(Image.open(io.BytesIO(base64.b64decode(sample.image.partition(",")[2]))))
    words = {name: getattr(sample, name) for name in ("name", "label", "prediction", "note", "text")}
    return {**words, "image": image}


def confusion_rows(matrix: Sequence[Sequence[float]], classes: Sequence[str]) -> list[list[Any]]:
    """Rows (actual, predicted, count) of the cells that are not zero, the largest first, as many as a chart shows."""
    cells: list[list[Any]] = [
        [classes[i], classes[j], count] for i, row in enumerate(matrix) for j, count in enumerate(row) if count > 0
    ]
    return sorted(cells, key=lambda cell: -cell[2])[:MAX_CONFUSION_CELLS]


def wandb_mode(mode: str) -> str:
    """One of WANDB_MODES; with `auto` the environment variable WANDB_MODE decides where it is set."""
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or "auto"
    if mode not in WANDB_MODES:
        raise GraftError(f"logger.wandb.mode={mode}: unknown. Allowed: {', '.join(WANDB_MODES)} (or WANDB_MODE)")
    return mode


def has_wandb_login(base_url: str) -> bool:
    """Whether a key for this server is in the environment or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(base_url).netloc
    try:
        logins = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
    except (OSError, netrc.NetrcParseError):
        return False
    return any(logins.authenticators(name) for name in (WANDB_HOSTS if host in WANDB_HOSTS else (host,)))


def wandb_id(run_dir: Path) -> str | None:
    """Id of the W&B run that this folder was recorded to last, so that a resumed run goes on there."""
    names = [re.fullmatch(r"(offline-)?run-(\d+_\d+)-(.+)", path.name) for path in (run_dir / "wandb").glob("*run-*")]
    # Where W&B could not be reached, the offline run that took over is the later one, maybe within the same second.
    return max(((n[2], n[1] is not None, n[3]) for n in names if n), default=(None,))[-1]
