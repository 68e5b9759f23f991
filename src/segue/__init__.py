"""Segue deploys a new version of a service while users keep using it.

The promise, against which everything here is tested:

1. No request is lost because of a deployment: not by any strategy, not by a rollback, not by a crash of Segue.
2. A broken new version is not a user's problem: what it fails and may be repeated, the old version answers.
3. At every instant the ready instances of a version cover the share of the traffic it is given.
4. Going back is one switch as long as the old version is kept, and never needs more room than the way there.
5. A crash of the control plane costs nothing: traffic flows on, and the rollout ends where it would have ended.
6. Every decision is explained with the numbers it was made from, and the books balance.
"""

__version__ = "0.1.0"
