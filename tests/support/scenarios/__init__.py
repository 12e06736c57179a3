"""What `./scripts/demo` can show: real programs, real traffic, and three counts that must agree.

A scenario is one file that ends in a `Scenario`; it stands in the list of `catalog`. It gets a `Stage` (the
lab, up and empty) and fills a `Result`. The demo around it makes and removes the lab, prints, and turns
`Result.problems` into the exit code: a scenario only does its job and says what was wrong.
"""
