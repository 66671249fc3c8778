"""A trained network in other libraries' formats, checked on samples before a file is kept."""
