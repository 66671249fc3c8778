from graft.cache.key import cache_key, code_hash, versions


def test_the_key_follows_every_value_and_no_order():
    first = cache_key({"a": 1, "b": {"c": [2, 3]}})
    assert cache_key({"b": {"c": [2, 3]}, "a": 1}) == first
    assert cache_key({"a": 1, "b": {"c": [3, 2]}}) != first


def test_code_is_hashed_by_file_and_by_folder():
    assert (
        len({code_hash(names) for names in (("heads.py",), ("cache",), ("cache/key.py",), ("heads.py", "cache"))}) == 4
    )


def test_versions_name_the_packages():
    assert set(versions(("torch", "pillow"))) == {"torch", "pillow"}
