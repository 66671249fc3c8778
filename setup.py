"""Put conf/ into a wheel, as graft/conf, where graft.locations finds it; an editable install reads the clone's."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """Copy the config files beside the modules."""

    def run(self) -> None:
        """Build as ever, then copy."""
        super().run()
        if not self.editable_mode:
            shutil.copytree(Path(__file__).parent / "conf", Path(self.build_lib) / "graft/conf", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConf})
