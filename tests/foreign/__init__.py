"""The same agent tests against servers that others have written: llama.cpp's own, and the LiteLLM proxy."""
