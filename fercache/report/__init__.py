"""`fercache report`: what came out, as one page to look at."""

from fercache.report.stage import report

__all__ = ["report"]
