def test_start(database, lakehouse, namespace, valkey):
    with database().connect() as c:
        assert c.execute("select 1").fetchone() == (1,)
    assert (namespace,) in lakehouse.catalog().list_namespaces()
    valkey.set("a", 1)
    assert valkey.get("a") == b"1"
