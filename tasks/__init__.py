"""The steps of the flows, in the order data passes: each one call of the core, with its name, retries and artifacts."""
