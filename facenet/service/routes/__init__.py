"""The routes of the service: each calls a function of the library and says its answer as JSON."""
