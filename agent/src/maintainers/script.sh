# Asks the tree in the current directory who answers for /in/culprit.patch, if it is there, and
# for the file that is the first argument, if the tree has it. There is no git here, and who
# happened to touch a file last answers for nothing.
set -u
ask() {
    perl scripts/get_maintainer.pl --nogit --nogit-fallback "$@" </dev/null 2>/tmp/said && return
    code=$?
    # Warnings are no answer; what it died of is.
    tail -n 1 /tmp/said
    return "$code"
}

worst=0
if [ ! -f scripts/get_maintainer.pl ]; then
    echo 'the tree has no such script'
    exit 2
fi
if [ -f /in/culprit.patch ]; then
    ask /in/culprit.patch || worst=$?
fi
if [ -n "$1" ] && [ -f "$1" ]; then
    ask -f "$1" || worst=$?
fi
exit "$worst"
