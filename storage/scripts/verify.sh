#!/bin/sh
# Verifies recordings of the Tapdeck call recorder: are they as they were sealed, and is none missing?
#
#   ./verify.sh                    every recording in the folder where this script lies, and their chain
#   ./verify.sh RECORDING...       these recordings: any file of each, or what the names of its files begin with
#   ./verify.sh -c FILE ...        trust the certificates in FILE, not those that lie in the folder
#
# It needs OpenSSL and sha256sum (or shasum), and what every POSIX system has. It changes nothing.
# Exit code: 0 all intact; 1 a recording was altered or is missing; 2 something cannot be checked; 64 wrong use.
#
# By hand, for a recording whose files begin with S:
#   openssl x509 -in tapdeck-certificate.pem -pubkey -noout > key.pem
#   openssl dgst -sha256 -verify key.pem -signature S_hash.SHA256withRSA.sig S_hash.txt
#   sha256sum -c S_hash.txt
#
# Whoever replaces recordings may replace this script and the certificate too: take both from where you trust them,
# and compare the fingerprint below with the one that was noted when the recorder was installed.

LC_ALL=C
export LC_ALL
umask 077

SIG=_hash.SHA256withRSA.sig
tab=$(printf '\t')
intact=0 altered=0 missing=0 unknown=0
work=

usage() {
    printf 'Usage: %s [-c CERTIFICATE] [RECORDING...]\n%s\n' "$(safe "$0")" "$(safe "$1")" >&2
    exit 64
}

# A name as a terminal can only print it.
safe() {
    printf '%s' "$1" | tr '\000-\037\177' '?'
}

say() {
    printf '%-18s %s\n' "$1" "$(safe "$2")"
}

digest() {
    if [ "$sha" = sha256sum ]; then
        sha256sum < "$1"
    else
        shasum -a 256 < "$1"
    fi | cut -c 1-64
}

# What a file of a recording is called without its ending; fails for other files.
stem_of() {
    case $1 in
        *_hash.txt) stem=${1%_hash.txt} ;;
        *"$SIG") stem=${1%"$SIG"} ;;
        *_info.txt) stem=${1%_info.txt} ;;
        *_packets.pcapng) stem=${1%_packets.pcapng}; known "$stem" || stem=${1%.pcapng} ;;
        *.pcapng) stem=${1%.pcapng} ;;
        *_caller.wav) stem=${1%_caller.wav}; known "$stem" || stem=${1%.wav} ;;
        *_callee.wav) stem=${1%_callee.wav}; known "$stem" || stem=${1%.wav} ;;
        *.wav) stem=${1%.wav} ;;
        *) return 1 ;;
    esac
    [ -n "$stem" ]
}

known() {
    [ -f "$1_hash.txt" ] || [ -f "$1_info.txt" ] || [ -f "$1$SIG" ]
}

# Certificates: one file each, with the key beside it. Without -c, those keys are trusted that certify each other and
# that signed most; with -c, the keys in that file, and those that they certify.
read_certificates() {
    : > "$work/all"
    first=0
    if [ -n "$pinned" ]; then
        cat "$pinned" >> "$work/all"
        first=$(grep -c 'BEGIN CERTIFICATE' "$pinned")
    fi
    [ ! -f ./tapdeck-certificate.pem ] || [ ! -r ./tapdeck-certificate.pem ] || cat ./tapdeck-certificate.pem >> "$work/all"
    awk -v to="$work/certificate" '
        /-----BEGIN CERTIFICATE-----/ { n++; inside = 1 }
        inside { print > (to "." n) }
        /-----END CERTIFICATE-----/ { inside = 0; close(to "." n) }' < "$work/all"
    certificates= trusted=
    n=1
    while [ -f "$work/certificate.$n" ]; do
        one=$work/certificate.$n
        if openssl x509 -in "$one" -pubkey -noout > "$one.key" 2> /dev/null && certified_part "$one"; then
            certificates="$certificates $n"
            bits=$(openssl pkey -pubin -in "$one.key" -noout -text 2> /dev/null | sed -n 's/.*(\([0-9]*\) bit.*/\1/p')
            echo $(((${bits:-0} + 7) / 8)) > "$one.size"
            [ "$n" -gt "$first" ] || trusted="$trusted $n"
        else
            say 'CANNOT BE CHECKED' "certificate $n cannot be read: it was changed or cut"
            unknown=$((unknown + 1))
        fi
        n=$((n + 1))
    done
    drop_changed
    join_certificates
}

# A certificate beside the recordings that nobody's key here has signed is not as it was made.
drop_changed() {
    good=
    for one in $certificates; do
        for other in $certificates; do
            [ "$one" -gt "$first" ] && ! signed_by "$other" "$one" || { good="$good $one"; continue 2; }
        done
        say ALTERED "tapdeck-certificate.pem: certificate $((one - first)) in it was changed: its signature is by no key that is here"
        altered=$((altered + 1))
    done
    certificates=$good
}

trusts() {
    case " $trusted " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

# What the issuer of a certificate signed, and the signature.
certified_part() {
    openssl x509 -in "$1" -outform DER -out "$1.der" 2> /dev/null &&
        at=$(openssl asn1parse -inform DER -in "$1.der" 2> /dev/null | sed -n 's/^ *\([0-9]*\):d=1 .*BIT STRING.*/\1/p' | tail -n 1) &&
        [ -n "$at" ] &&
        openssl asn1parse -inform DER -in "$1.der" -strparse 4 -noout -out "$1.body" > /dev/null 2>&1 &&
        openssl asn1parse -inform DER -in "$1.der" -strparse "$at" -noout -out "$1.signature" > /dev/null 2>&1
}

join_certificates() {
    if [ -n "$pinned" ]; then
        grow
        return
    fi
    : > "$work/groups"
    for start in $certificates; do
        ! grep -q " $start " "$work/groups" || continue
        trusted=$start
        grow
        printf ' %s \n' "$trusted" >> "$work/groups"
    done
    [ "$(wc -l < "$work/groups")" -le 1 ] || choose_group
}

# Several groups of keys that have nothing to do with each other: the one that signed most is taken for the recorder's.
choose_group() {
    signers=' '
    for sig in ./*"$SIG"; do
        hashes=${sig%"$SIG"}_hash.txt
        [ -r "$sig" ] && [ -r "$hashes" ] || continue
        signers="$signers$(signer "$sig" "$hashes") "
    done
    most=-1
    while IFS= read -r group; do
        count=0
        for one in $signers; do
            case $group in *" $one "*) count=$((count + 1)) ;; esac
        done
        [ "$count" -gt "$most" ] && most=$count trusted=$group
    done < "$work/groups"
}

# Add the keys that the trusted ones certify and, without -c, those that certify them.
grow() {
    more=yes
    while [ -n "$more" ]; do
        more=
        for one in $certificates; do
            ! trusts "$one" || continue
            for other in $trusted; do
                if vouches "$other" "$one" || { [ -z "$pinned" ] && vouches "$one" "$other"; }; then
                    trusted="$trusted $one" more=yes
                    break
                fi
            done
        done
    done
}

signed_by() {
    verified "$work/certificate.$1.key" "$work/certificate.$2.signature" "$work/certificate.$2.body"
}

# Whether certificate $2 is signed with the key of certificate $1, or is for the same key.
vouches() {
    signed_by "$1" "$2" ||
        cmp -s "$work/certificate.$1.key" "$work/certificate.$2.key"
}

verified() {
    openssl dgst -sha256 -verify "$1" -signature "$2" "$3" > /dev/null 2>&1
}

size() {
    wc -c < "$1" | tr -d ' '
}

# Which certificate's key signed the file $2 with the signature $1; prints nothing if none. OpenSSL would not look at
# what stands behind a signature.
signer() {
    for one in $certificates; do
        if [ "$(size "$1")" = "$(cat "$work/certificate.$one.size")" ] && verified "$work/certificate.$one.key" "$1" "$2"; then
            printf '%s' "$one"
            return
        fi
    done
}

# One recording; sets verdict and why. What the chain needs goes into the table.
check() {
    stem=$1 verdict=intact why=
    check_signature
    [ "$verdict" = altered ] || check_files
    row
}

alter() {
    [ "$verdict" = altered ] || why=
    verdict=altered
    why="${why:+$why; }$1"
}

check_signature() {
    if [ ! -f "$stem$SIG" ]; then
        verdict='cannot be checked' why="$stem$SIG is not there: nothing vouches for the hash file"
        [ -f "${stem}_hash.txt" ] || why='it is not sealed: there is neither a hash file nor a signature'
    elif [ ! -f "${stem}_hash.txt" ]; then
        alter "${stem}_hash.txt is not there, but its signature is"
    elif [ ! -r "${stem}_hash.txt" ] || [ ! -r "$stem$SIG" ]; then
        verdict='cannot be checked' why='its hash file or its signature cannot be read'
    elif [ -z "$certificates" ]; then
        verdict='cannot be checked' why='there is no certificate to check it with'
    else
        by=$(signer "./$stem$SIG" "./${stem}_hash.txt")
        if [ -z "$by" ]; then
            wrong_signature
        elif ! trusts "$by"; then
            alter 'it is signed with another key: no certificate by the key of the recorder vouches for that one'
        fi
    fi
}

# The signature does not fit the hash file: say which of the two was changed, if that can be told.
wrong_signature() {
    sizes=' '
    for one in $certificates; do sizes="$sizes$(cat "$work/certificate.$one.size") "; done
    case $sizes in
        *" $(size "./$stem$SIG") "*) ;;
        *) alter "$stem$SIG was changed: it has $(size "./$stem$SIG") bytes and should have ${sizes# }"; return ;;
    esac
    for other in ./*_hash.txt; do
        [ -f "$other" ] && [ "$other" != "./${stem}_hash.txt" ] && [ -n "$(signer "./$stem$SIG" "$other")" ] || continue
        other=${other#./}
        alter "$stem$SIG is the signature of $other: the signature was swapped"
        return
    done
    : > "$work/before"
    for file in "./$stem"*; do
        file=${file#./}
        part_of "$file" && printf '%s  %s\n' "$(digest "./$file")" "$file" >> "$work/before"
    done
    if [ -n "$(signer "./$stem$SIG" "$work/before")" ]; then
        alter "${stem}_hash.txt was changed; the files that it vouches for are as they were sealed"
        return
    fi
    for one in $certificates; do
        openssl pkeyutl -verifyrecover -pubin -inkey "$work/certificate.$one.key" -in "./$stem$SIG" > /dev/null 2>&1 || continue
        alter "${stem}_hash.txt is not the hash file that was signed in $stem$SIG: one of the two was changed"
        return
    done
    alter "$stem$SIG is no signature by a key whose certificate is here: it was changed, or made with another key"
}

# Whether a file is one that the hash file vouches for.
part_of() {
    case ${1#"$stem"} in
        .wav | _caller.wav | _callee.wav | .pcapng | _packets.pcapng | _info.txt) [ -f "./$1" ] ;;
        *) return 1 ;;
    esac
}

check_files() {
    [ -f "${stem}_hash.txt" ] && [ -r "${stem}_hash.txt" ] || return
    old=$verdict oldwhy=$why verdict=intact why=
    : > "$work/listed"
    while IFS= read -r line || [ -n "$line" ]; do
        name=${line#*  }
        hash=${line%%  *}
        case $name in */* | '') alter "${stem}_hash.txt is not a list of hashes"; continue ;; esac
        printf '%s\n' "$name" >> "$work/listed"
        if [ "${name#"$stem"}" = "$name" ]; then
            alter "it was renamed: its hash file vouches for $name"
            return
        elif [ ! -f "./$name" ]; then
            alter "$name is not there"
        elif [ ! -r "./$name" ]; then
            [ "$verdict" = altered ] || { verdict='cannot be checked' why="$name cannot be read"; }
        elif [ "$(digest "./$name")" != "$hash" ]; then
            alter "$name was changed: it is not the file that was sealed"
        fi
    done < "./${stem}_hash.txt"
    [ -s "$work/listed" ] || alter "${stem}_hash.txt is empty"
    for file in "./$stem"*; do
        file=${file#./}
        part_of "$file" || continue
        grep -Fqx -e "$file" "$work/listed" || alter "$file was added: the hash file does not name it"
    done
    if [ "$verdict" = intact ] && [ "$old" != intact ]; then verdict=$old why=$oldwhy; fi
}

value() {
    sed -n "s/^$1: *//p" "./${stem}_info.txt" 2> /dev/null | head -n 1
}

# number, verdict, id, hash of the hash file, signature, previous id, previous signature, time of sealing, name, day,
# previous day, why
row() {
    number=$((number + 1))
    id=$(value RecordingId)
    [ -n "$id" ] || id=${stem##*_}
    hash= own=
    [ ! -f "${stem}_hash.txt" ] || hash='?'
    [ ! -f "$stem$SIG" ] || own='?'
    [ ! -r "${stem}_hash.txt" ] || [ -z "$hash" ] || hash=$(digest "./${stem}_hash.txt")
    [ ! -r "$stem$SIG" ] || [ -z "$own" ] || own=$(openssl base64 -A -in "./$stem$SIG")
    day=$(value Datetime | cut -c 1-10)
    printf "%s$tab%s$tab%s$tab%s$tab%s$tab%s$tab%s$tab%s$tab%s$tab%s$tab%s$tab%s\n" "$number" "$verdict" "$(safe "$id")" "$hash" "$own" \
        "$(safe "$(value PreviousRecording)")" "$(safe "$(value PreviousSignature)")" "$(safe "$(value SealedAt)")" \
        "$(safe "$stem")" "$(safe "$day")" "$(safe "$(value PreviousDay)")" "$(safe "$why")" >> "$work/table"
}

# The checkpoints of the days; what they name goes into a list: Recording, Tombstone or OtherDay, id, hash or day, the
# checkpoint, its day.
checkpoints() {
    for sig in ./tapdeck-day-????-??-??.SHA256withRSA.sig; do
        file=${sig%.SHA256withRSA.sig}.txt
        [ -f "$sig" ] && [ ! -f "$file" ] || continue
        say ALTERED "${file#./} is not there, but its signature is"
        altered=$((altered + 1))
    done
    for file in ./tapdeck-day-*.txt; do
        [ -f "$file" ] || continue
        sig=${file%.txt}.SHA256withRSA.sig file=${file#./}
        if [ ! -f "$sig" ] || [ -z "$certificates" ]; then
            say 'CANNOT BE CHECKED' "$file: there is no signature, or no certificate to check it with"
            unknown=$((unknown + 1))
            continue
        fi
        by=$(signer "$sig" "./$file")
        day=$(sed -n 's/^Day: *//p' "./$file" | head -n 1)
        if [ -n "$by" ] && trusts "$by" && [ "$file" != "tapdeck-day-$day.txt" ]; then
            say ALTERED "$file: it was renamed: it is the checkpoint of $day"
            altered=$((altered + 1))
            continue
        elif [ -n "$by" ] && trusts "$by"; then
            say intact "$file"
            awk -v OFS="$tab" -v by="$file" -v day="$day" '/^(Recording|Tombstone|OtherDay): / {
                sub(/:$/, "", $1); print $1, $3, $4, by, day }' "./$file" >> "$work/named"
            continue
        fi
        say ALTERED "$file: it, or its signature, was changed, or it was signed with another key"
        altered=$((altered + 1))
    done
}

# What the recordings and the checkpoints say of each other. Prints verdict, name, why.
chain() {
    awk -F "$tab" -v OFS="$tab" -v whole="$1" '
        FILENAME ~ /named$/ {
            span($5)
            if ($1 == "Tombstone") explained[$2] = 1
            else if ($1 == "OtherDay") of[$2] = $3
            else { said[$2] = $3; by[$2] = $4; of[$2] = $5 }
            next
        }
        { span($10)
          n++; verdict[n] = $2; id[n] = $3; hash[n] = $4; own[n] = $5; previous[n] = $6; before[n] = $7; sealed[n] = $8
          name[n] = $9; of_previous[n] = $11; why[n] = $12
          if ($3 in place && hash[place[$3]] != $4 && $2 == "intact" && verdict[place[$3]] == "intact") twice[$3] = 1
          if (!($3 in place) || $2 == "intact") place[$3] = n }
        # The first and the last day that this folder speaks of.
        function span(day) {
            if (day !~ /^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]$/) return
            if (first == "" || day < first) first = day
            if (day > latest) latest = day
        }
        # A recording is not here: it lies in the folder of the day on which its call began.
        function absent(id, day, text) {
            gone[id] = text
            if (day != "" && first != "" && (day < first || day > latest)) day_of[id] = day
        }
        function alter(i, text) { if (verdict[i] != "altered") { verdict[i] = "altered"; why[i] = text } }
        END {
            for (i = 1; i <= n; i++) {
                if (verdict[i] != "intact") continue
                if (id[i] in twice) later[i] = "there is another recording with the id " id[i]
                if (id[i] in said && said[id[i]] != hash[i])
                    later[i] = by[id[i]] " names another hash for it: it was sealed again later"
                p = previous[i]
                if (p == "") continue
                if (p in place) {
                    q = place[p]
                    if (verdict[q] == "intact" && own[q] != before[i])
                        later[q] = "its signature is not the one that " name[i] " names: it was sealed again later"
                    if (verdict[q] == "cannot be checked" && (own[q] == "" || hash[q] == ""))
                        later[q] = "its seal was removed: " name[i] " names its signature"
                } else if (whole && !(p in explained) && !(p in gone)) {
                    last = 0
                    for (j = 1; j <= n; j++)
                        if (verdict[j] == "intact" && sealed[j] < sealed[i] && (!last || sealed[j] > sealed[last])) last = j
                    if (last) absent(p, of_previous[i], name[i] " names it as sealed before itself; the gap is between " name[last] " and " name[i])
                }
                if (p in follower && id[follower[p]] != id[i]) {
                    other = follower[p]
                    fork[i] = other; fork[other] = i
                }
                follower[p] = i
                goes_on[p] = 1
            }
            for (i in fork) if (!(id[i] in goes_on) && !(id[i] in said) && !(i in later))
                later[i] = "it was inserted: it names " previous[i] " as sealed before it, and so does " name[fork[i]]
            for (i in said) {
                if (i in place) {
                    q = place[i]
                    if (verdict[q] == "cannot be checked" && (own[q] == "" || hash[q] == ""))
                        later[q] = "its seal was removed: " by[i] " names it"
                } else if (whole && !(i in explained) && !(i in gone)) absent(i, of[i], by[i] " names it")
            }
            for (i in later) alter(i, later[i])
            for (i = 1; i <= n; i++) print verdict[i], name[i], why[i]
            for (i in gone) print "missing", i, gone[i], day_of[i]
            for (i = 1; i <= n; i++) {
                if (verdict[i] != "intact" || previous[i] != "") continue
                last = other = 0
                for (j = 1; j <= n; j++) {
                    if (verdict[j] != "intact" || sealed[j] >= sealed[i] || id[j] == id[i]) continue
                    if (!last || sealed[j] > sealed[last]) last = j
                    if (!(previous[j] in place)) other = j  # it does not go on from this one, whatever the clock said
                }
                if (other) print "cannot be checked", name[i], "a new chain begins here: whether any were removed between " \
                    name[last] " and " name[i] " cannot be told"
            }
        }' "$work/named" "$work/table"
}

report() {
    chain "$1" > "$work/verdicts"
    while IFS="$tab" read -r verdict name why day; do
        case $verdict in
            intact) intact=$((intact + 1)); say intact "$name" ;;
            altered) altered=$((altered + 1)); say ALTERED "$name: $why" ;;
            missing)
                near_days "$name" && continue
                if [ -n "$day" ] && [ ! -d "../../../$(printf '%s' "$day" | tr - /)" ]; then
                    say elsewhere "$name: it lies in the folder of $day, where its call began: that is not here"
                    continue
                fi
                missing=$((missing + 1)); say MISSING "$name: $why" ;;
            *) unknown=$((unknown + 1)); say 'CANNOT BE CHECKED' "$name: $why" ;;
        esac
    done < "$work/verdicts"
}

# A call that ends after midnight is sealed among those of the next day, but lies in the folder of its own.
near_days() {
    for file in ../??/*_"$1"_hash.txt ../../??/??/*_"$1"_hash.txt ../../../????/??/??/*_"$1"_hash.txt; do
        [ -f "$file" ] && return 0
    done
    return 1
}

fingerprints() {
    for one in $certificates; do
        by='no other key here certifies it'
        for same in $certificates; do
            cmp -s "$work/certificate.$one.key" "$work/certificate.$same.key" || continue
            for other in $certificates; do
                cmp -s "$work/certificate.$one.key" "$work/certificate.$other.key" || ! signed_by "$other" "$same" ||
                    by='certified by another key here'
            done
        done
        printf 'certificate %s: SHA-256 %s  %s\n' "$one" "$(openssl x509 -in "$work/certificate.$one" -noout -fingerprint -sha256 |
            sed 's/.*=//; s/://g' | tr 'A-F' 'a-f')" "$by"
    done
    [ -z "$certificates" ] || echo 'Compare it with the one that was noted when the recorder was installed.'
}

pinned=
while [ $# -gt 0 ]; do
    case $1 in
        -c) [ $# -ge 2 ] || usage '-c needs a file'; pinned=$2; shift 2 ;;
        -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 0 ;;
        --) shift; break ;;
        -*) usage "unknown option $1" ;;
        *) break ;;
    esac
done
[ -z "$pinned" ] || [ -r "$pinned" ] || usage "$pinned cannot be read"
command -v openssl > /dev/null 2>&1 || { echo 'OpenSSL (openssl) is not installed' >&2; exit 2; }
if command -v sha256sum > /dev/null 2>&1; then sha=sha256sum
elif command -v shasum > /dev/null 2>&1; then sha=shasum
else echo 'neither sha256sum nor shasum is installed' >&2; exit 2; fi

trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
try=${TMPDIR:-/tmp}/tapdeck-verify.$$
mkdir "$try" || exit 2
work=$(cd "$try" && pwd) || exit 2
: > "$work/table"
: > "$work/named"
number=0
case $pinned in '' | /*) ;; *) pinned=$PWD/$pinned ;; esac

start() {
    cd -- "$1" || exit 2
    rm -f "$work"/certificate*
    read_certificates
}

if [ $# -eq 0 ]; then
    case $0 in */*) start "${0%/*}" ;; *) start . ;; esac
    checkpoints
    : > "$work/done"
    for file in ./*.wav ./*.pcapng ./*_info.txt ./*_hash.txt ./*"$SIG"; do
        file=${file#./}
        [ -f "./$file" ] && stem_of "$file" || continue
        printf '%s\n' "$stem" | tr '\n' '\001' >> "$work/done"
        echo >> "$work/done"
    done
    sort -u "$work/done" > "$work/stems"
    while IFS= read -r line; do
        stem=$(printf '%s\n' "$line" | tr '\001' '\n')
        check "$stem"
    done < "$work/stems"
    report 1
else
    here=$PWD
    for path in "$@"; do
        cd "$here" || exit 2
        case $path in */*) folder=${path%/*} name=${path##*/} ;; *) folder=. name=$path ;; esac
        [ -d "${folder:=/}" ] || usage "$path does not exist"
        start "$folder"
        if known "$name"; then stem=$name
        elif [ ! -e "./$name" ] || ! stem_of "$name"; then usage "$path is no file of a recording"; fi
        check "$stem"
    done
    report ''
fi

printf '\n%s intact, %s altered, %s missing, %s cannot be checked\n' "$intact" "$altered" "$missing" "$unknown"
fingerprints
[ $((altered + missing)) -eq 0 ] || exit 1
[ "$unknown" -eq 0 ] && [ "$intact" -gt 0 ] || exit 2
exit 0
