"""Mozart: tenants' databases into an Iceberg lakehouse, and an OLAP layer kept fresh.

This package is the library; it knows no Prefect except under `mozart.fleet` and `mozart.cli`.
"""

__version__ = "0.1.0"
