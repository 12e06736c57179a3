"""nginx's configuration → ours: what it says, with what nginx does where it says nothing, and a report of the
rest. docs/nginx.md is the manual."""
