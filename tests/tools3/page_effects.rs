//! What the commands of docs/operations.md bring about, as looks that follow them; and situations in which the commands
//! of its text are tried.

/// What the checks are made of.
pub const FUNCTIONS: &str = r#"
# Fails with what there is when a look does not come true in time.
within() {
    local limit=$1 end=$((SECONDS + $1)); shift
    until "$@"; do
        if test $SECONDS -ge $end; then
            echo "not within $limit s: $*"; klamm brokers list; klamm quorum describe; klamm reassign status; return 1
        fi
        sleep 0.3
    done
}
# A "!" before a command would not end the script.
fails() { ! "$@"; }
row() { klamm brokers list | awk -v id=$1 '$1 == id'; }
held() { row $1 | awk '{ print $(NF - 2) }'; }
leads() { row $1 | awk '{ print $(NF - 1) }'; }
holds() { test "$(held $1)" = $2; }
is_listed() { row $1 | grep -q .; }
is_not_listed() { ! is_listed $1; }
says() { row $1 | grep -q "$2"; }
is_silent_of() { ! row $1 | grep -q "$2"; }
active() { test $(klamm brokers list | grep -c active) = $1; }
spread() { klamm brokers list | awk '/active/ && !/cordoned/ {
    r = $(NF - 2); l = $(NF - 1)
    if (!n++) { rmin = rmax = r; lmin = lmax = l }
    if (r < rmin) rmin = r; if (r > rmax) rmax = r; if (l < lmin) lmin = l; if (l > lmax) lmax = l
} END { exit !(n && rmax - rmin <= 1 && lmax - lmin <= 1) }'; }
votes() { test "$(klamm quorum describe | awk '$2 == "leader" || $2 == "voter" { print $1 }' | xargs)" = "$*"; }
rows() { klamm topics describe $1 | awk 'on; /^PARTITION/ { on = 1 }'; }
copies() { test "$(rows $1 | awk '{ print split($4, a, ",") }' | sort -u)" = $2; }
in_sync() { rows $1 | awk '{ if (split($4, a, ",") != split($5, b, ",")) bad = 1 } END { exit bad || !NR }'; }
first_leads() { rows $1 | awk '{ split($4, a, ","); if (a[1] != $2) bad = 1 } END { exit bad || !NR }'; }
still() { klamm reassign status | grep -q 'nothing is being moved'; }
unthrottled() {
    for topic in $(klamm topics list -o json | tr ',{' '\n\n' | sed -n 's/.*"name": *"\([^"]*\)".*/\1/p'); do
        ! klamm configs describe topic $topic | grep throttled || return 1
    done
    for id in $(klamm brokers list | awk '$1 ~ /^[0-9]+$/ && /active/ { print $1 }'); do
        ! klamm configs describe broker $id | grep throttled || return 1
    done
}
lines() { test $(klamm consume $1 --from-beginning --exit-at-end | wc -l) = $2; }
metric() { curl -fs 127.0.0.1:1964$1/metrics | awk -v name=$2 '$1 == name { print int($2) }'; }
"#;

/// A command of the page, and what must be so after it.
pub const EFFECTS: &[(&str, &str)] = &[
    (
        "klamm topics create orders --partitions 6",
        "test $(rows orders | wc -l) = 6; copies orders 3; within 20 in_sync orders",
    ),
    ("seq 1 1000 | klamm produce orders", "lines orders 1000"),
    (
        "for id in 2 1 0; do safe $id; stop $id; start $id; ready $id; done",
        "active 3; within 20 in_sync orders; lines orders 1000",
    ),
    ("klamm cluster elect", "within 20 first_leads orders"),
    ("klamm brokers maintenance start 1 --for 10m", "says 1 maintenance; test $(leads 1) = 0; in_sync orders"),
    ("safe 1; stop 1; start 1; ready 1", "says 1 maintenance; test $(leads 1) = 0"),
    ("klamm brokers maintenance stop 1", "within 10 is_silent_of 1 maintenance"),
    ("start 2; ready 2", "active 3 || active 4; within 30 in_sync orders"),
    (
        "klamm configs alter brokers --set klamm.log.scrub.interval.ms=60000 --set klamm.log.scrub.bytes.per.second=100000000",
        "klamm configs describe brokers | grep -q klamm.log.scrub.interval.ms",
    ),
    (
        "klamm configs alter brokers --delete klamm.log.scrub.interval.ms --delete klamm.log.scrub.bytes.per.second",
        "test -z \"$(klamm configs describe brokers | grep klamm.log.scrub || true)\"",
    ),
    (
        "klamm cluster balance --yes",
        "within 30 spread; still; klamm cluster balance --dry-run | grep -q 'nothing to move'",
    ),
    ("klamm topics create payments --partitions 4 --replication-factor 1", "copies payments 1"),
    ("klamm reassign plan --topics payments --replication-factor 2 -o json > plan.json", "copies payments 1"),
    (
        "klamm reassign execute plan.json --max-moves 2 --throttle 50000000",
        "copies payments 2; in_sync payments; still; unthrottled; lines payments 1000",
    ),
    ("klamm reassign cancel", "within 20 still; copies payments 2; unthrottled"),
    ("klamm reassign throttle off", "unthrottled"),
    ("start 6; ready 6", "active 4; holds 6 0; lines orders 1000"),
    ("klamm cluster balance --yes --throttle 50000000", "within 30 spread; test $(held 6) -gt 0; unthrottled"),
    ("klamm brokers drain 2 --yes", "holds 2 0; says 2 cordoned; copies orders 3; still; unthrottled"),
    ("klamm cluster unregister 2", "within 10 is_not_listed 2; within 10 votes 0 1 6"),
    ("klamm brokers uncordon 2", "within 10 is_silent_of 2 cordoned"),
    ("klamm brokers drain 6 --yes", "holds 6 0; says 6 cordoned; copies orders 3"),
    ("klamm cluster unregister 6", "within 10 is_not_listed 6; within 10 votes 0 1 2"),
    ("klamm reassign execute --topics orders --replication-factor 2 --yes", "copies orders 2; lines orders 1000"),
    (
        "klamm reassign execute --topics orders --replication-factor 3 --yes",
        "copies orders 3; in_sync orders; lines orders 1000",
    ),
    ("klamm topics create grown --partitions 3", "copies grown 1"),
    ("ready 4; ready 5", "active 3; within 30 votes 0 4 5; copies grown 1"),
    ("klamm reassign execute --replication-factor 3 --yes", "copies grown 3; in_sync grown; lines grown 100"),
];

/// Commands of the page's text, and a situation in which they are tried at the end of a section.
pub struct Drill {
    pub section: &'static str,
    /// The commands, as the text has them.
    pub tries: &'static [&'static str],
    pub script: &'static str,
}

pub const DRILLS: &[Drill] = &[
    Drill {
        section: "Form a cluster",
        tries: &["head -c 16 /dev/urandom | basenc --base64url | cut -c 1-22"],
        script: r"
head -c 16 /dev/urandom | basenc --base64url | cut -c 1-22 | grep -Eq '^[A-Za-z0-9_-]{22}$'
active 3; votes 0 1 2; curl -fs 127.0.0.1:19640/livez",
    },
    Drill {
        section: "A broker's disk is lost",
        tries: &["klamm cluster elect --topic TOPIC:PARTITION --unclean"],
        script: r"
klamm topics create scratch --partitions 3 --replication-factor 1
for p in 0 1 2; do klamm produce scratch -p $p --value kept; done
p=$(rows scratch | awk '$4 == 2 { print $1 }')
kill -9 $(cat node-2.pid); rm -r data-2; start 2
nobody_leads() { rows scratch | awk -v p=$p '$1 == p && $2 !~ /[0-9]/ { found = 1 } END { exit !found }'; }
leads_again() { rows scratch | awk -v p=$p '$1 == p && $2 == 2 && $8 == 0 { found = 1 } END { exit !found }'; }
within 60 nobody_leads; within 60 says 2 active; within 60 in_sync orders; nobody_leads
klamm cluster elect --topic scratch:$p --unclean
within 20 leads_again
klamm produce scratch -p $p --value new; lines scratch 3
klamm topics delete scratch; within 60 ready 2",
    },
    Drill {
        section: "A disk gives back other bits than it was given",
        tries: &["klamm groups reset-offsets", "klamm log verify DIR", "kafka-delete-records.sh"],
        script: r#"
klamm topics create lone --partitions 1 --replication-factor 1
for n in 1 2 3; do klamm produce lone --value record-$n; done
test $(klamm consume lone --group readers --from-beginning --max-messages 1) = record-1
h=$(rows lone | awk '{ print $4 }'); dir=data-$h/lone-0
klamm log verify $dir
stop $h
at=$(klamm log dump $dir --batches -o json | sed -n 's/.*"position": *\([0-9]*\).*/\1/p' | sed -n 2p)
printf '\377\377' | dd of=$dir/00000000000000000000.log bs=1 seek=$((at + 62)) conv=notrunc status=none
fails klamm log verify $dir > verified
grep -q CRC verified
start $h; within 60 says $h active
fails klamm consume lone --group readers --max-messages 1 --timeout 5 2> refused
grep -Eq 'CORRUPT_MESSAGE|damaged' refused
damaged() { test "$(metric $h klamm_log_damaged_partitions)" = $1; }
within 20 damaged 1
klamm groups reset-offsets readers --topic lone --to-offset 2
test $(klamm consume lone --group readers --max-messages 1) = record-3
echo '{"version":1,"partitions":[{"topic":"lone","partition":0,"offset":2}]}' > delete.json
kafka-delete-records --bootstrap-server $KLAMM_BOOTSTRAP --offset-json-file delete.json
test $(klamm consume lone --from-beginning --exit-at-end) = record-3
klamm topics delete lone; within 60 ready $h; within 60 damaged 0; klamm cluster elect; lines orders 1000"#,
    },
    Drill {
        section: "Move partitions",
        tries: &["klamm reassign execute", "klamm reassign throttle 50000000", "kafka-reassign-partitions.sh"],
        script: r#"
kafka() { kafka-reassign-partitions --bootstrap-server $KLAMM_BOOTSTRAP "$@"; }
klamm reassign plan --topics payments --drain 0 -o json > ours.json
kafka --reassignment-json-file ours.json --execute | grep -q 'Successfully started'
moved() { kafka --reassignment-json-file ours.json --verify > verified; fails grep -q 'in progress' verified; }
within 30 moved; grep -q 'is completed' verified; test -z "$(rows payments | awk '$4 ~ /0/')"
echo '{"version":1,"topics":[{"topic":"payments"}]}' > topics.json
kafka --topics-to-move-json-file topics.json --broker-list 0,1,2 --generate > generated
sed -n '/^Current/{n;p}' generated > back.json; sed -n '/^Proposed/{n;p}' generated > there.json
klamm reassign execute there.json; copies payments 2
klamm reassign execute back.json; copies payments 2; lines payments 1000
klamm topics create slow --partitions 1 --replication-factor 1
seq 1 13000 | sed 's/$/ 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789/' | klamm produce slow
to=$((($(rows slow | awk '{ print $4 }') + 1) % 3))
klamm reassign execute --topics slow --brokers $to --yes --throttle 1000 2> begun & watching=$!
goes_on() { klamm reassign status | grep -q ^slow; }
within 20 goes_on
kill -TERM $watching; fails wait $watching
grep -q 'the throttle stays' begun; goes_on
klamm reassign throttle 50000000
klamm reassign execute --topics slow --brokers $to --yes
within 20 still; rows slow | awk -v to=$to '{ exit $4 != to }'; lines slow 13000
klamm reassign throttle off; unthrottled; klamm topics delete slow"#,
    },
];
