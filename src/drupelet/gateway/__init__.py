"""The device's OpenAI-compatible server: admission, routing between two slots, the inference children behind them."""
