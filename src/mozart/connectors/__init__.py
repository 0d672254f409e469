"""Source databases: one module each, behind `BaseConnector`, made by `create_connector(type)`."""
