"""Step and outcome rewards into advantages, and thin bridges to RL trainers.

    completions -> traces -> PRM and grader -> `rollouts.Rollout` -> `shaping.shape` -> rewards or token advantages
    (`scorer`)                                                                          (`trl`, `verl`, `openrlhf`)

The functions in `normalise`, `scalar`, `dense`, `filters`, `length` and `monitor` are pure. Rewards carry no gradient,
so they take and give plain numbers: a scalar of B rollouts is a list of floats with None where a rollout is unscored,
and a value for each token is one float64 array (T,) a rollout. A tensor goes in by `.tolist()`; out of
`dense.padded` comes one (B, T) array for `torch.from_numpy`.
"""
