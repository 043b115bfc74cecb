"""PostgreSQL, Redis and Envoy from wheels, and the supervisor that runs them with the product's own processes.

For one machine, without root and without Docker: `python -m controlplane.embedded up` or `demo`. No Django in here.
"""
