"""The yardstick: how many problems gradopt and its peers solve, at what cost, and which successes they claim falsely.

- cases: problems from starts, as they are or in shifted and rescaled variables
- referee: what solved means, and whether a claimed success is a minimum
- solvers, peers: gradopt's optimisers, and other people's, behind one signature
- groups: which solvers meet on which cases, with which budget
- runs: every solver in a process of its own, with a limit of time; results are kept as they come
- report: tables and profiles
"""
