# The failed tests of one suite, from the log of cargo, node (TAP or spec) or unittest: what each has said, then all their names.
#
#   awk -v suite=NAME [-v names=FILE] -f scripts/failures.awk LOG
#
# The names are appended to FILE, by default they are printed behind the rest.

BEGIN {
  # Bounds: lines of what one test has said, tests of which that is shown, characters of a line, lines of a log in which nothing is recognized.
  LINES = 60; TESTS = 20; CHARACTERS = 400; LAST = 20
  # Lines that a panic has in any case, and panics of one test of which that is true.
  PANIC_LINES = 30; PANICS = 3
  if (names == "") names = "/dev/stdout"
}

{
  sub(/\r$/, "")
  last[NR % LAST] = $0
}

function shorten(line) { return length(line) > CHARACTERS ? substr(line, 1, CHARACTERS) " ..." : line }
function begin(of, line) {
  block = of
  left = LINES
  panics = traces = 0
  if (++shown <= TESTS) print "\n" shorten(line)
}
function say(line) {
  if (line ~ / panicked at / && left < PANIC_LINES && panics++ < PANICS) left = PANIC_LINES
  if (shown > TESTS || left-- <= 0) return
  if (left > 0) print shorten(line)
  else print "[more of it is in the log]"
}
function fail(name) { failed[++count] = name }

# cargo: which tests these are.
/^ +Running (unittests )?[^ ]+ \(/ { crate = $2 == "unittests" ? $3 : $2; listing = 0 }
/^ +Doc-tests / { crate = "doc"; listing = 0 }

# cargo: what they have said, then their names.
/^---- .* stdout ----$/ { begin("cargo", $0); next }
block == "cargo" && /^stack backtrace:$/ { traces = 1; next }
traces && /^ +([0-9]+: |at )/ { next }
/^failures:$/ { block = ""; listing = 1; next }
listing && /^    [^ ]/ { fail(crate ": " substr($0, 5)); next }
/^test result:/ { listing = 0 }

# cargo: a process that a signal ended has named nobody.
/process didn't exit successfully: .*\(signal/ { fail(crate ": " substr($0, index($0, "(signal"))) ; next }

/^thread '.*has overflowed its stack$/ { fail(crate ": " $0); next }

# cargo: what does not compile.
/^error(\[E[0-9]+\])?: / && !/^error: (test failed|[0-9]+ targets? failed)/ && block != "cargo" { fail($0); begin("compiler", $0); next }

# node, TAP.
/^ *not ok [0-9]+/ && !/# (TODO|SKIP)/ {
  name = $0
  sub(/^ *not ok [0-9]+ - /, "", name)
  fail(name)
  begin("tap", $0)
  next
}
block == "tap" && /^ *\.\.\.$/ { block = ""; next }
block == "tap" && /^ *(---$|duration_ms:|type:)/ { next }

# node, spec: all that failed stands at the end.
/^✖ failing tests:/ { spec = 1; next }
spec && /^test at / { block = ""; place = substr($0, 9); next }
spec && /^ *✖ / && !/# TODO/ {
  name = $0
  sub(/^ *✖ /, "", name)
  sub(/ \([0-9.]+ms\)$/, "", name)
  fail(name)
  begin("spec", place ": " name)
  next
}

# unittest.
/^=====+$/ { block = "line"; next }
block == "line" && /^(FAIL|ERROR): / { fail($0); begin("unittest", $0); next }
block == "unittest" && /^-----+$/ { next }
block == "unittest" && /^Ran [0-9]+ test/ { block = "" }

block == "compiler" && /^$/ { block = "" }
block != "" && block != "line" { say($0) }

END {
  if (shown > TESTS) print "\n[what " shown - TESTS " more have said is in the log]"
  if (count == 0) {
    print "\nthe end of the log of " suite ":"
    for (at = NR < LAST ? 1 : NR - LAST + 1; at <= NR; at++) print shorten(last[at % LAST])
  }
  print "failed: " suite >> names
  for (at = 1; at <= count; at++) print "    " shorten(failed[at]) >> names
}
