"""What can go wrong on one machine; every message says what was expected and what was found."""


class EmbeddedStackError(Exception):
    """The embedded stack cannot do what was asked of it."""


class MissingDependency(EmbeddedStackError):
    """A package, a file or a platform that the embedded stack needs is not there."""


class FolderInUse(EmbeddedStackError):
    """Another running stack holds the data folder."""


class ChildNotReady(EmbeddedStackError):
    """A child process ended, or did not answer in time, before it was ready."""
