"""Profile the source files of the running Python's standard library: two runners, two opinions, one truth.

`parser` reads a module's syntax tree and is nearly sure; `scanner` counts by pattern, is quicker and less sure. Both claim how many
lines, functions and classes a module has and what it imports, so some of their claims contradict each other.
"""
