"""What `./scripts/demo` can show: real programs, real traffic, and counts of several parties that must agree.

A scenario is one file that ends in a `Scenario`, a value that says what is its own. It stands in the list of
`catalog`. What all share is in `play`; two forms build on it:

* `Counted`: so many requests, and a `Witness` that looks for what the scenario is there to prove. `counting`
  and `compare` do the rest.
* `Story`: something happens while clients keep asking. `story` and `crowd` do the rest.

The demo around it makes and removes the lab, prints, and turns `Result.problems` into the exit code.
"""
