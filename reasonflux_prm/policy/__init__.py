"""Policies: text in, text out, for judges, template writers and rollouts alike.

`base` holds the protocol, `open` finds a policy by name. Backends: `openai_compatible` (any endpoint that speaks the
OpenAI chat protocol: vLLM, SGLang, llama.cpp, `transformers serve`, hosted services), `local` (transformers in this
process), `vllm` (vLLM in this process), `scripted` (answers from a script, for tests and docs). Around a backend:
`budget` (what may be spent) and, around that, `cache` (nothing is asked twice):

    CachedPolicy(BudgetedPolicy(open_policy("gpt-4o@https://.../v1"), Budget(tokens=10**6)), path)
"""
