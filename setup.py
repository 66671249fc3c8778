"""What pyproject.toml cannot say: a wheel carries conf/ inside of the package; a clone has it beside src/."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """Copies conf/ to graft/conf, where graft.locations finds it."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("conf", Path(self.build_lib, "graft", "conf"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConf})
