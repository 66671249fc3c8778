"""Tiny models of two towers."""

import pytest

from tests.networks_on_disk import write_clap, write_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def clap_folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return write_clap(tmp_path_factory.mktemp("clap"))
