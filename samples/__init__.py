"""Generators of the sample sources: data that looks like a customer's, built the same way on every machine."""
