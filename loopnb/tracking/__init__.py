"""Know every task on the loop: where it came from, what it does, what it waits for."""
