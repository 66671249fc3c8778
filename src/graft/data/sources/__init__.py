"""Where data come from, one source a file, as in conf/data/domain."""
