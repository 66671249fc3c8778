"""Other libraries' converters without what they print, log and warn of: what they made is compared on samples."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

LOGGERS = (None, "onnxscript", "transformers")  # None is the root


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing below an error."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    try:
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
