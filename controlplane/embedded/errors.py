"""What can go wrong while the embedded parts start. The message is one line for a person, and it says what to do."""


class StartFailed(Exception):
    """The start cannot go on: a taken port, a missing part, a server that does not come up."""
