"""Health poller and traffic reader: the only writers of what was observed of services."""
