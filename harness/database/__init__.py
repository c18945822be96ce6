"""The replicated cluster database: registers, ballots, the proposer, and the acceptor with its Lua and Python forms."""
