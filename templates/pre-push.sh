#!/bin/sh
# supa-safe pre-push hook, version 2
#
# Asks supa-safe about a push that carries migrations to a branch of the policy's list.
# `supa-safe hook uninstall` removes this file and brings back the hook that stood here before.

supa_safe=supa-safe
hooks=$(CDPATH='' cd -P -- "$(dirname -- "$0")" && pwd -P) || exit
# The hook from before goes by its own name, in a folder beside this one.
kept=$hooks.before-supa-safe
before=$kept/pre-push

ask() {
    command -v "$supa_safe" >/dev/null 2>&1 || supa_safe=supa-safe
    if ! command -v "$supa_safe" >/dev/null 2>&1; then
        printf '%s\n' 'error: supa-safe was not found, so nobody judged this push' \
            'hint: Install it, or run supa-safe hook install again where it stands' \
            'hint: git push --no-verify skips every hook; that is your choice' >&2
        exit 1
    fi
    exec "$supa_safe" check --pre-push "$@"
}

# It looks for its helpers where it stands, so everything that stands here is there too.
show_around() {
    for other in "$hooks"/*; do
        name=${other##*/}
        case $name in *.sample) continue ;; esac
        [ -L "$kept/$name" ] || [ -e "$kept/$name" ] ||
            ln -s -- "../${hooks##*/}/$name" "$kept/$name" 2>/dev/null
    done
}

if [ -L "$before" ] || [ -e "$before" ]; then
    show_around
else
    # Where version 1 kept it.
    before=$hooks/pre-push.before-supa-safe
fi
if [ -x "$before" ]; then
    # Git says once what it pushes, and both hooks read it.
    pushed=$(cat)
    say_pushed() { [ -z "$pushed" ] || printf '%s\n' "$pushed" 2>/dev/null; }
    say_pushed | "$before" "$@" || exit
    say_pushed | ask "$@"
else
    ask "$@"
fi
