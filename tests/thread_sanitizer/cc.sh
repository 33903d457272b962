#!/usr/bin/env bash
# The C compiler as a linker that puts the sanitizer's runtime into the tests' programs: neither into shared libraries, which find
# it there, nor into build scripts, which are not instrumented.
case " $* " in
*' -shared '* | */build_script_*) exec cc "$@" ;;
*) exec cc "$@" -fuse-ld=lld -Wl,--whole-archive "$TSAN_RUNTIME" -Wl,--no-whole-archive -lrt -lresolv -ldl -lm -lpthread -lc -rdynamic ;;
esac
