"""The magics: `%aloop`, `%%aloop` and `%loopnb`."""
