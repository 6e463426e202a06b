//! The quantization-aware trainer on candle
