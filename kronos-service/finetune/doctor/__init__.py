"""The command `doctor`: can this machine do a real run? Ten checks, a line each.

Each check imports what it looks at, so that a package that does not load is a fault of its own line. No line
holds the value of a variable that may hold a password (a proxy, a mirror, a key), nor words that may quote
one.
"""
