#!/usr/bin/env bash
# The C compiler as a linker that puts the sanitizer's runtime into programs; shared libraries find it there.
for argument in "$@"; do
    if [ "$argument" = -shared ]; then exec cc "$@"; fi
done
exec cc "$@" -Wl,--whole-archive "$TSAN_RUNTIME" -Wl,--no-whole-archive -lrt -lresolv -ldl -lm -lpthread -rdynamic
