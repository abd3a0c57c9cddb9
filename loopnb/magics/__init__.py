"""The magics: `%aloop`, `%%aloop`, `%%noloop` and `%loopnb`."""
