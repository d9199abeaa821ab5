"""What is kept: accounts, keys, providers, routes, conversations and usage in a database, and secrets beside it.

Imported by module: the database's libraries take half a second, which commands that need none of it do not pay.
"""
