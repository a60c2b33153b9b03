"""Loaded by the process that decoding processes are copies of, and nowhere else.

So torch is imported once for all of them. The signals that stop a command reach every process of its group; this one
lasts until the command has ended.
"""

import fercache.data.loader  # noqa: F401 - what the copies need
from fercache.runtime import ignore_interrupts

ignore_interrupts()
