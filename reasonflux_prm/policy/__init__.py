"""Policies: text in, text out.

`base` holds the protocol, `scripted` a policy that answers from a script (tests, docs), `openai_compatible` any
endpoint that speaks the OpenAI chat protocol (vLLM, SGLang, llama.cpp, `transformers serve`, hosted services).
"""
