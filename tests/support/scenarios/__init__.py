"""What `./scripts/demo` can show: real programs, real traffic, and counts of several parties that must agree.

A scenario is one file that ends in a `Scenario`, a value that says what is its own: the network, the
configuration, what is sent, and a `Witness` that looks for what it is there to prove. It stands in the list
of `catalog`. What all share is in `play` and `compare`. The demo around it makes and removes the lab, prints,
and turns `Result.problems` into the exit code.
"""
