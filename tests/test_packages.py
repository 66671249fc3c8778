import pytest

from graft.errors import GraftError
from graft.packages import file_in_package, folder_in_package


def test_files_and_folders_of_an_installed_package():
    assert file_in_package("pip:pytest/skipping.py", "key").name == "skipping.py"
    assert folder_in_package("pip:pytest", "skipping.py", "key").name == "_pytest"


def test_what_is_not_there_is_named():
    with pytest.raises(GraftError, match=r"key=pip:graft-nothing/a: the package is not installed.*pip install"):
        file_in_package("pip:graft-nothing/a", "key")
    with pytest.raises(GraftError, match=r"key=pip:pytest/nothing\.csv: the package has no such file"):
        file_in_package("pip:pytest/nothing.csv", "key")
