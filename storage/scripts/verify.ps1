# Verifies recordings of the Tapdeck call recorder: are they as they were sealed, and is none missing?
#
#   powershell -ExecutionPolicy Bypass -File verify.ps1                     the folder where this script lies
#   powershell -ExecutionPolicy Bypass -File verify.ps1 RECORDING           any file of a recording, or what the names
#                                                                           of its files begin with
#   powershell -ExecutionPolicy Bypass -File verify.ps1 -Certificate FILE   trust the certificates in FILE only
#
# For Windows PowerShell 5.1, as it comes with Windows 10 and 11; it needs nothing else, and it changes nothing.
# It is the twin of verify.sh, written with care, but it has not been run in Tapdeck's tests, which have no Windows.
# Where the two disagree, believe verify.sh or OpenSSL.
#
# Exit code: 0 all intact; 1 a recording was altered or is missing; 2 something cannot be checked; 64 wrong use.
#
# By hand, with OpenSSL, for a recording whose files begin with S:
#   openssl x509 -in tapdeck-certificate.pem -pubkey -noout > key.pem
#   openssl dgst -sha256 -verify key.pem -signature S_hash.SHA256withRSA.sig S_hash.txt
#   certutil -hashfile S.wav SHA256        (and compare with the line in S_hash.txt)
#
# Whoever replaces recordings may replace this script and the certificate too: take both from where you trust them,
# and compare the fingerprint below with the one that was noted when the recorder was installed.

[CmdletBinding(PositionalBinding = $false)]
param(
    [string]$Certificate = '',
    [Parameter(Position = 0, ValueFromRemainingArguments = $true)][string[]]$Recording = @()
)

$ErrorActionPreference = 'Stop'
trap { [Console]::Error.WriteLine('verify.ps1 cannot go on: ' + $_.Exception.Message); exit 2 }
$Sig = '_hash.SHA256withRSA.sig'
$Content = @('_packets.pcapng', '_caller.wav', '_callee.wav', '_info.txt', '.pcapng', '.wav')
$Ordinal = [System.StringComparer]::Ordinal
$Counts = @{ 'intact' = 0; 'ALTERED' = 0; 'MISSING' = 0; 'CANNOT BE CHECKED' = 0 }

function New-Table { return , (New-Object System.Collections.Hashtable ($Ordinal)) }

function Stop-Usage([string]$text) {
    [Console]::Error.WriteLine('Usage: verify.ps1 [-Certificate FILE] [RECORDING...]')
    [Console]::Error.WriteLine((Get-Safe $text))
    exit 64
}

# A name as a console can only print it.
function Get-Safe([string]$text) { return [regex]::Replace($text, '[\x00-\x1f\x7f-\x9f]', '?') }

function Write-Verdict([string]$verdict, [string]$text) {
    $Counts[$verdict] = $Counts[$verdict] + 1
    [Console]::Out.WriteLine($verdict.PadRight(18) + ' ' + (Get-Safe $text))
}

function Get-Hex($bytes) { return [System.BitConverter]::ToString([byte[]]$bytes).Replace('-', '').ToLowerInvariant() }

# Not SHA256.Create(): where Windows is told to allow FIPS-approved programs only, .NET refuses that one.
function New-Sha256 { return (New-Object System.Security.Cryptography.SHA256CryptoServiceProvider) }

function Get-Digest([string]$path) {
    $stream = [System.IO.File]::OpenRead($path)
    try {
        return (Get-Hex ((New-Sha256).ComputeHash($stream)))
    } finally { $stream.Dispose() }
}

# --- certificates -----------------------------------------------------------------------------------------------

# Where the value of the DER element at $at begins, and where the element ends.
function Get-Element([byte[]]$der, [int]$at) {
    $length = [int]$der[$at + 1]
    $start = $at + 2
    if ($length -ge 128) {
        $octets = $length - 128
        $length = 0
        for ($i = 0; $i -lt $octets; $i++) { $length = $length * 256 + [int]$der[$start + $i] }
        $start = $start + $octets
    }
    return [pscustomobject]@{ Start = $start; End = $start + $length }
}

function Get-Slice([byte[]]$bytes, [int]$from, [int]$to) {
    $part = New-Object byte[] ($to - $from)
    [System.Array]::Copy($bytes, $from, $part, 0, $to - $from)
    return , $part
}

function Read-Certificates([string]$path) {
    $text = [System.IO.File]::ReadAllText($path)
    $pattern = '-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----'
    foreach ($match in [regex]::Matches($text, $pattern)) {
        try {
            $der = [System.Convert]::FromBase64String($match.Groups[1].Value)
            $one = New-Object System.Security.Cryptography.X509Certificates.X509Certificate2 (, [byte[]]$der)
            $rsa = [System.Security.Cryptography.X509Certificates.RSACertificateExtensions]::GetRSAPublicKey($one)
            if ($null -eq $rsa) { throw 'no RSA key' }
            $body = Get-Element $der ((Get-Element $der 0).Start)
            $algorithm = Get-Element $der $body.End
            $signature = Get-Element $der $algorithm.End
            [pscustomobject]@{
                Fingerprint = Get-Hex ((New-Sha256).ComputeHash($der))
                Key         = $one.GetPublicKeyString()
                Rsa         = $rsa
                Body        = Get-Slice $der ((Get-Element $der 0).Start) $body.End
                Signature   = Get-Slice $der ($signature.Start + 1) $signature.End
                Trusted     = $false
            }
        } catch {
            Write-Verdict 'CANNOT BE CHECKED' ('a certificate in ' + $path + ' cannot be read')
        }
    }
}

function Test-Signature($certificate, [byte[]]$data, [byte[]]$signature) {
    $name = [System.Security.Cryptography.HashAlgorithmName]::SHA256
    $padding = [System.Security.Cryptography.RSASignaturePadding]::Pkcs1
    try { return $certificate.Rsa.VerifyData($data, $signature, $name, $padding) } catch { return $false }
}

function Test-Vouches($one, $other) {
    return ($one.Key -ceq $other.Key) -or (Test-Signature $one $other.Body $other.Signature)
}

# A certificate beside the recordings that nobody's key here has signed is not as it was made.
function Get-Unchanged($found, $all) {
    foreach ($one in $found) {
        $good = $false
        foreach ($other in $all) { if (Test-Signature $other $one.Body $one.Signature) { $good = $true; break } }
        if ($good) { $one; continue }
        Write-Verdict 'ALTERED' ('tapdeck-certificate.pem: the certificate ' + $one.Fingerprint +
            ' in it was changed: its signature is by no key that is here')
    }
}

# Trust those that a trusted one certifies and, without -Certificate, those that certify a trusted one.
function Add-Trust($all) {
    do {
        $more = $false
        foreach ($one in $all) {
            if ($one.Trusted) { continue }
            foreach ($other in $all) {
                if (-not $other.Trusted) { continue }
                if ((Test-Vouches $other $one) -or ($Certificate -eq '' -and (Test-Vouches $one $other))) {
                    $one.Trusted = $true
                    $more = $true
                    break
                }
            }
        }
    } while ($more)
}

# Several groups of keys that have nothing to do with each other: the one that signed most is taken for the recorder's.
function Select-Group($all, [string]$folder) {
    $groups = New-Object System.Collections.ArrayList
    foreach ($one in $all) {
        $known = $false
        foreach ($group in $groups) { if ($group.Contains($one.Fingerprint)) { $known = $true } }
        if ($known) { continue }
        foreach ($other in $all) { $other.Trusted = $false }
        $one.Trusted = $true
        Add-Trust $all
        $members = New-Object System.Collections.ArrayList
        foreach ($other in $all) { if ($other.Trusted) { [void]$members.Add($other.Fingerprint) } }
        [void]$groups.Add($members)
    }
    $best = $null
    $most = -1
    foreach ($group in $groups) {
        $count = 0
        if ($groups.Count -gt 1) {
            $count = Get-SignedCount @($all | Where-Object { $group.Contains($_.Fingerprint) }) $folder
        }
        if ($count -gt $most) { $most = $count; $best = $group }
    }
    foreach ($one in $all) { $one.Trusted = ($null -ne $best -and $best.Contains($one.Fingerprint)) }
}

function Get-SignedCount($group, [string]$folder) {
    $count = 0
    foreach ($path in [System.IO.Directory]::GetFiles($folder, ('*' + $Sig))) {
        $hashes = $path.Substring(0, $path.Length - $Sig.Length) + '_hash.txt'
        if (-not $path.EndsWith($Sig, [System.StringComparison]::Ordinal)) { continue }
        try {
            $signature = [System.IO.File]::ReadAllBytes($path)
            if ($null -ne (Get-Signer $group ([System.IO.File]::ReadAllBytes($hashes)) $signature)) { $count = $count + 1 }
        } catch { continue }
    }
    return $count
}

# Without -Certificate, those keys are trusted that certify each other and that signed most; with it, the keys in that
# file, and those that they certify.
function Get-Certificates([string]$folder) {
    $pinned = @()
    if ($Certificate -ne '') { $pinned = @(Read-Certificates $Certificate) }
    $found = @()
    $beside = [System.IO.Path]::Combine($folder, 'tapdeck-certificate.pem')
    if ([System.IO.File]::Exists($beside)) { $found = @(Read-Certificates $beside) }
    $found = @(Get-Unchanged $found (@($pinned) + @($found)))
    $all = @($pinned) + @($found)
    foreach ($one in $pinned) { $one.Trusted = $true }
    if ($Certificate -eq '') { Select-Group $all $folder } else { Add-Trust $all }
    return , $all
}

function Get-Signer($certificates, [byte[]]$data, [byte[]]$signature) {
    foreach ($one in $certificates) { if (Test-Signature $one $data $signature) { return $one } }
    return $null
}

# --- one recording ----------------------------------------------------------------------------------------------

# What the names of the files of a recording begin with: of each recording in a folder.
function Get-Stems([string]$folder) {
    $names = @([System.IO.Directory]::GetFiles($folder) | ForEach-Object { [System.IO.Path]::GetFileName($_) })
    $stems = New-Object 'System.Collections.Generic.SortedDictionary[string,object]' ($Ordinal)
    foreach ($end in @('_info.txt', '_hash.txt', $Sig)) {
        foreach ($name in $names) {
            if ($name.EndsWith($end, [System.StringComparison]::Ordinal) -and $name.Length -gt $end.Length) {
                $stems[$name.Substring(0, $name.Length - $end.Length)] = New-Object System.Collections.ArrayList
            }
        }
    }
    foreach ($name in $names) {
        $stem = $null
        foreach ($end in ($Content + @('_hash.txt', $Sig))) {
            if (-not $name.EndsWith($end, [System.StringComparison]::Ordinal) -or $name.Length -le $end.Length) { continue }
            $begin = $name.Substring(0, $name.Length - $end.Length)
            if ($stems.ContainsKey($begin)) { $stem = $begin; break }
            if ($null -eq $stem) { $stem = $begin }
        }
        if ($null -eq $stem) { continue }
        if (-not $stems.ContainsKey($stem)) { $stems[$stem] = New-Object System.Collections.ArrayList }
        [void]$stems[$stem].Add($name)
    }
    return , $stems
}

function Read-Info([string]$path) {
    $values = New-Table
    if (-not [System.IO.File]::Exists($path)) { return $values }
    foreach ($line in [System.IO.File]::ReadAllText($path).Split("`n")) {
        $colon = $line.IndexOf(':')
        if ($colon -le 0) { continue }
        $key = $line.Substring(0, $colon)
        if (-not $values.ContainsKey($key)) { $values[$key] = $line.Substring($colon + 1).Trim() }
    }
    return $values
}

function Set-Altered($row, [string]$why) {
    if ($row.Verdict -ceq 'ALTERED' -and $row.Why -ne '') { $row.Why = $row.Why + '; ' + $why } else { $row.Why = $why }
    $row.Verdict = 'ALTERED'
}

function Test-Recording([string]$folder, [string]$stem, $names, $certificates) {
    $row = [pscustomobject]@{
        Verdict = 'intact'; Why = ''; Stem = $stem; Id = ''; Hash = ''; Own = ''; Previous = ''; Before = ''; Sealed = ''
        Day = ''; PreviousDay = ''
    }
    $row.Id = $stem.Substring($stem.LastIndexOf('_') + 1)
    if ($names -ccontains ($stem + '_hash.txt')) { $row.Hash = '?' }  # what cannot be read is not what was removed
    if ($names -ccontains ($stem + $Sig)) { $row.Own = '?' }
    try {
        $info = Read-Info ([System.IO.Path]::Combine($folder, $stem + '_info.txt'))
        if ($info['RecordingId']) { $row.Id = $info['RecordingId'] }
        $row.Previous = [string]$info['PreviousRecording']
        $row.Before = [string]$info['PreviousSignature']
        $row.Sealed = [string]$info['SealedAt']
        if ([string]$info['Datetime'] -cmatch '^([0-9]{4}-[0-9]{2}-[0-9]{2})') { $row.Day = $Matches[1] }
        $row.PreviousDay = [string]$info['PreviousDay']
        $hashes = $null
        $signature = $null
        if ($names -ccontains ($stem + '_hash.txt')) {
            $hashes = [System.IO.File]::ReadAllBytes([System.IO.Path]::Combine($folder, $stem + '_hash.txt'))
            $row.Hash = Get-Hex ((New-Sha256).ComputeHash([byte[]]$hashes))
        }
        if ($names -ccontains ($stem + $Sig)) {
            $signature = [System.IO.File]::ReadAllBytes([System.IO.Path]::Combine($folder, $stem + $Sig))
            $row.Own = [System.Convert]::ToBase64String([byte[]]$signature)
        }
        Test-Seal $row $folder $hashes $signature $certificates
        if ($row.Verdict -cne 'ALTERED' -and $null -ne $hashes) { Test-Files $row $folder $names $hashes }
    } catch {
        if ($row.Verdict -cne 'ALTERED') {
            $row.Verdict = 'CANNOT BE CHECKED'
            $row.Why = 'one of its files cannot be read: ' + $_.Exception.Message
        }
    }
    return $row
}

function Test-Seal($row, [string]$folder, $hashes, $signature, $certificates) {
    $stem = $row.Stem
    if ($null -eq $hashes -and $null -eq $signature) {
        $row.Verdict = 'CANNOT BE CHECKED'
        $row.Why = 'it is not sealed: there is neither a hash file nor a signature'
    } elseif ($null -eq $signature) {
        $row.Verdict = 'CANNOT BE CHECKED'
        $row.Why = $stem + $Sig + ' is not there: nothing vouches for the hash file'
    } elseif ($null -eq $hashes) {
        Set-Altered $row ($stem + '_hash.txt is not there, but its signature is')
    } elseif ($certificates.Count -eq 0) {
        $row.Verdict = 'CANNOT BE CHECKED'
        $row.Why = 'there is no certificate to check it with'
    } else {
        $by = Get-Signer $certificates $hashes $signature
        if ($null -eq $by) {
            Set-WrongSignature $row $folder $signature $certificates
        } elseif (-not $by.Trusted) {
            Set-Altered $row ('it is signed with another key: no certificate by the key of the recorder vouches for ' +
                'that one')
        }
    }
}

function Set-WrongSignature($row, [string]$folder, $signature, $certificates) {
    $own = $row.Stem + '_hash.txt'
    foreach ($path in [System.IO.Directory]::GetFiles($folder, '*_hash.txt')) {
        $name = [System.IO.Path]::GetFileName($path)
        if ($name -ceq $own -or -not $name.EndsWith('_hash.txt', [System.StringComparison]::Ordinal)) { continue }
        if ($null -ne (Get-Signer $certificates ([System.IO.File]::ReadAllBytes($path)) $signature)) {
            Set-Altered $row ($row.Stem + $Sig + ' is the signature of ' + $name + ': the signature was swapped')
            return
        }
    }
    Set-Altered $row ($own + ', or its signature ' + $row.Stem + $Sig + ', was changed, or it was signed with another key')
}

function Test-Files($row, [string]$folder, $names, $hashes) {
    $listed = New-Table
    $lines = [System.Text.Encoding]::UTF8.GetString([byte[]]$hashes).Split("`n")
    foreach ($line in $lines) {
        if ($line -eq '') { continue }
        $parts = [regex]::Match($line, '^([0-9a-f]{64})  ([^/\\]+)$')
        if (-not $parts.Success) {
            Set-Altered $row ($row.Stem + '_hash.txt is not a list of hashes')
            return
        }
        $digest = $parts.Groups[1].Value
        $name = $parts.Groups[2].Value
        $listed[$name] = $digest
        if (-not $name.StartsWith($row.Stem, [System.StringComparison]::Ordinal)) {
            Set-Altered $row ('it was renamed: its hash file vouches for ' + $name)
            return
        }
        if ($names -cnotcontains $name) {
            Set-Altered $row ($name + ' is not there')
        } elseif ((Get-Digest ([System.IO.Path]::Combine($folder, $name))) -cne $digest) {
            Set-Altered $row ($name + ' was changed: it is not the file that was sealed')
        }
    }
    if ($listed.get_Count() -eq 0) { Set-Altered $row ($row.Stem + '_hash.txt is empty') }
    foreach ($name in $names) {
        if ($name -ceq ($row.Stem + '_hash.txt') -or $name -ceq ($row.Stem + $Sig)) { continue }
        if (-not $listed.ContainsKey($name)) {
            Set-Altered $row ($name + ' was added: the hash file does not name it')
        }
    }
}

# --- what checkpoints and recordings say of each other ----------------------------------------------------------

function Read-Checkpoints([string]$folder, $certificates, $said, $explained, $days) {
    foreach ($path in [System.IO.Directory]::GetFiles($folder, 'tapdeck-day-*.SHA256withRSA.sig')) {
        $text = $path -creplace '\.SHA256withRSA\.sig$', '.txt'
        if ([System.IO.File]::Exists($text)) { continue }
        Write-Verdict 'ALTERED' ([System.IO.Path]::GetFileName($text) + ' is not there, but its signature is')
    }
    foreach ($path in [System.IO.Directory]::GetFiles($folder, 'tapdeck-day-*.txt')) {
        $name = [System.IO.Path]::GetFileName($path)
        if (-not $name.EndsWith('.txt')) { continue }  # Windows takes *.txt to mean *.txtx, too
        $beside = $path.Substring(0, $path.Length - 4) + '.SHA256withRSA.sig'
        if (-not [System.IO.File]::Exists($beside) -or $certificates.Count -eq 0) {
            Write-Verdict 'CANNOT BE CHECKED' ($name + ': there is no signature, or no certificate to check it with')
            continue
        }
        $content = [System.IO.File]::ReadAllBytes($path)
        $by = Get-Signer $certificates $content ([System.IO.File]::ReadAllBytes($beside))
        if ($null -eq $by -or -not $by.Trusted) {
            Write-Verdict 'ALTERED' ($name + ': it, or its signature, was changed, or it was signed with another key')
            continue
        }
        $lines = [System.Text.Encoding]::UTF8.GetString($content).Split("`n")
        $day = ''
        foreach ($line in $lines) { if ($line -cmatch '^Day: *([0-9-]+)$') { $day = $Matches[1]; break } }
        if ($name -cne ('tapdeck-day-' + $day + '.txt')) {
            Write-Verdict 'ALTERED' ($name + ': it was renamed: it is the checkpoint of ' + $day)
            continue
        }
        $days[$day] = $true
        [Console]::Out.WriteLine('intact'.PadRight(18) + ' ' + (Get-Safe $name))
        foreach ($line in $lines) {
            if ($line -cmatch '^Recording: *[0-9]+ ([^ ]+) ([0-9a-f]{64})') {
                $said[$Matches[1]] = @($Matches[2], $name, $day)
            } elseif ($line -cmatch '^OtherDay: *[0-9]+ ([^ ]+) ([0-9-]+)') {
                if ($said.ContainsKey($Matches[1])) { $said[$Matches[1]][2] = $Matches[2] }
            } elseif ($line -cmatch '^Tombstone: *[0-9]+ ([^ ]+) ') {
                $explained[$Matches[1]] = $true
            }
        }
    }
}

# A call that ends after midnight is sealed among those of the next day, but lies in the folder of its own.
function Test-NearDay([string]$folder, [string]$id) {
    if ($id -cnotmatch '^[A-Za-z0-9-]+$') { return $false }
    $day = [datetime]::MinValue
    $parts = @(($folder -replace '[\\/]+$', '') -split '[\\/]')
    if ($parts.Count -lt 4) { return $false }
    $last = $parts.Count - 1
    $text = $parts[$last - 2] + '-' + $parts[$last - 1] + '-' + $parts[$last]
    $culture = [System.Globalization.CultureInfo]::InvariantCulture
    $none = [System.Globalization.DateTimeStyles]::None
    if (-not [datetime]::TryParseExact($text, 'yyyy-MM-dd', $culture, $none, [ref]$day)) { return $false }
    $root = [System.IO.Path]::GetFullPath([System.IO.Path]::Combine($folder, '..', '..', '..'))
    foreach ($step in @(-1, 1)) {
        $names = $day.AddDays($step).ToString('yyyy-MM-dd', $culture).Split('-')
        $beside = [System.IO.Path]::Combine($root, $names[0], $names[1], $names[2])
        if (-not [System.IO.Directory]::Exists($beside)) { continue }
        if ([System.IO.Directory]::GetFiles($beside, '*_' + $id + '_hash.txt').Count -gt 0) { return $true }
    }
    return $false
}

# What is not here and lies in the folder of another day: that day, if it is before or after those that this folder
# speaks of, and there is no folder of it beside this one.
function Get-OtherDay([string]$folder, $days, [string]$day) {
    if ($day -cnotmatch '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' -or $days.get_Count() -eq 0) { return '' }
    $known = @($days.get_Keys())
    [System.Array]::Sort($known, $Ordinal)
    if ([string]::CompareOrdinal($day, $known[0]) -ge 0 -and [string]::CompareOrdinal($day, $known[-1]) -le 0) { return '' }
    $parts = $day.Split('-')
    $root = [System.IO.Path]::GetFullPath([System.IO.Path]::Combine($folder, '..', '..', '..'))
    if ([System.IO.Directory]::Exists([System.IO.Path]::Combine($root, $parts[0], $parts[1], $parts[2]))) { return '' }
    return $day
}

function Test-Chain($rows, [string]$folder, $said, $explained, $days, [bool]$whole) {
    $dayOf = New-Table
    foreach ($row in $rows) { if ($row.Day -ne '') { $days[$row.Day] = $true } }
    $place = New-Table
    foreach ($row in $rows) { if (-not $place.ContainsKey($row.Id) -or $row.Verdict -ceq 'intact') { $place[$row.Id] = $row } }
    $gone = New-Table
    $good = @($rows | Where-Object { $_.Verdict -ceq 'intact' })
    foreach ($row in $good) {
        if ($row.Previous -eq '') { continue }
        if ($place.ContainsKey($row.Previous)) {
            $before = $place[$row.Previous]
            if ($before.Verdict -ceq 'CANNOT BE CHECKED' -and ($before.Own -eq '' -or $before.Hash -eq '')) {
                Set-Altered $before ('its seal was removed: ' + $row.Stem + ' names its signature')
            } elseif ($before.Verdict -ceq 'intact' -and $before.Own -cne $row.Before) {
                Set-Altered $before ('its signature is not the one that ' + $row.Stem + ' names: it was sealed again later')
            }
        } elseif ($whole -and -not $explained.ContainsKey($row.Previous)) {
            $last = $null
            foreach ($one in $good) {
                if ([string]::CompareOrdinal($one.Sealed, $row.Sealed) -ge 0) { continue }
                if ($null -eq $last -or [string]::CompareOrdinal($one.Sealed, $last.Sealed) -gt 0) { $last = $one }
            }
            if ($null -ne $last) {
                $gone[$row.Previous] = $row.Stem + ' names it as sealed before itself; the gap is between ' + $last.Stem +
                    ' and ' + $row.Stem
                $dayOf[$row.Previous] = $row.PreviousDay
            }
        }
    }
    foreach ($id in $said.get_Keys()) {
        if ($place.ContainsKey($id)) {
            $row = $place[$id]
            if ($row.Verdict -ceq 'ALTERED') { continue }
            if ($row.Own -eq '' -or $row.Hash -eq '') {
                Set-Altered $row ('its seal was removed: ' + $said[$id][1] + ' names it')
            } elseif ($row.Verdict -ceq 'intact' -and $row.Hash -cne $said[$id][0]) {
                Set-Altered $row ($said[$id][1] + ' names another hash for it: it was sealed again later')
            }
        } elseif ($whole -and -not $explained.ContainsKey($id) -and -not $gone.ContainsKey($id)) {
            $gone[$id] = $said[$id][1] + ' names it'
            $dayOf[$id] = $said[$id][2]
        }
    }
    Test-Forks $rows $place $said
    foreach ($id in @($gone.get_Keys())) {
        if (Test-NearDay $folder $id) { $gone.Remove($id); continue }
        $day = Get-OtherDay $folder $days ([string]$dayOf[$id])
        if ($day -eq '') { continue }
        $gone.Remove($id)
        [Console]::Out.WriteLine('elsewhere'.PadRight(18) + ' ' + (Get-Safe ($id + ': it lies in the folder of ' + $day +
                    ', where its call began: that is not here')))
    }
    if ($whole) { Test-NewChain $rows $place }
    return $gone
}

# A recording that names none before it, though others were sealed earlier that do not go on from it.
function Test-NewChain($rows, $place) {
    foreach ($row in $rows) {
        if ($row.Verdict -cne 'intact' -or $row.Previous -ne '') { continue }
        $last = $null
        $other = $false
        foreach ($one in $rows) {
            if ($one.Verdict -cne 'intact' -or $one.Id -ceq $row.Id) { continue }
            if ([string]::CompareOrdinal($one.Sealed, $row.Sealed) -ge 0) { continue }
            if ($null -eq $last -or [string]::CompareOrdinal($one.Sealed, $last.Sealed) -gt 0) { $last = $one }
            if (-not $place.ContainsKey($one.Previous)) { $other = $true }
        }
        if ($other) {
            Write-Verdict 'CANNOT BE CHECKED' ($row.Stem + ': a new chain begins here: whether any were removed between ' +
                $last.Stem + ' and ' + $row.Stem + ' cannot be told')
        }
    }
}

# Two recordings that name the same one before them: the chain goes on from one of them.
function Test-Forks($rows, $place, $said) {
    $follower = New-Table
    $named = New-Table
    foreach ($row in $rows) { if ($row.Verdict -ceq 'intact') { $named[$row.Previous] = $true } }
    foreach ($row in @($rows)) {
        if ($row.Verdict -cne 'intact' -or $row.Previous -eq '') { continue }
        if (-not $follower.ContainsKey($row.Previous)) { $follower[$row.Previous] = $row; continue }
        $other = $follower[$row.Previous]
        if ($other.Id -ceq $row.Id) { continue }
        foreach ($one in @($row, $other)) {
            if ($named.ContainsKey($one.Id) -or $said.ContainsKey($one.Id) -or $one.Verdict -cne 'intact') { continue }
            Set-Altered $one ('it was inserted: it names ' + $one.Previous + ' as sealed before it, and so does another')
        }
    }
}

# --- the run ----------------------------------------------------------------------------------------------------

# A relative path is one from where the shell stands, which .NET does not know.
function Get-FullPath([string]$path) {
    return $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($path)
}

function Test-Folder([string]$folder, $wanted) {
    $certificates = Get-Certificates $folder
    $said = New-Table
    $explained = New-Table
    $days = New-Table
    if ($null -eq $wanted) { Read-Checkpoints $folder $certificates $said $explained $days }
    $stems = Get-Stems $folder
    $rows = New-Object System.Collections.ArrayList
    foreach ($stem in @($stems.get_Keys())) {
        if ($null -ne $wanted -and $wanted -cnotcontains $stem) { continue }
        [void]$rows.Add((Test-Recording $folder $stem @($stems[$stem]) $certificates))
    }
    $gone = Test-Chain $rows $folder $said $explained $days ($null -eq $wanted)
    foreach ($row in $rows) {
        if ($row.Why -eq '') { Write-Verdict $row.Verdict $row.Stem } else { Write-Verdict $row.Verdict ($row.Stem + ': ' + $row.Why) }
    }
    foreach ($id in $gone.get_Keys()) { Write-Verdict 'MISSING' ($id + ': ' + $gone[$id]) }
    foreach ($one in $certificates) { [void]$script:Fingerprints.Add($one.Fingerprint) }
}

$Fingerprints = New-Object System.Collections.ArrayList
if ($Certificate -ne '') {
    $Certificate = Get-FullPath $Certificate
    if (-not [System.IO.File]::Exists($Certificate)) { Stop-Usage ($Certificate + ' cannot be read') }
}
if ($null -eq $Recording -or $Recording.Count -eq 0) {
    Test-Folder $PSScriptRoot $null
} else {
    foreach ($path in $Recording) {
        $full = Get-FullPath $path
        $folder = [System.IO.Path]::GetDirectoryName($full)
        if (-not [System.IO.Directory]::Exists($folder)) { Stop-Usage ($path + ' does not exist') }
        $name = [System.IO.Path]::GetFileName($full)
        $stems = Get-Stems $folder
        $stem = @($stems.get_Keys() | Where-Object { $_ -ceq $name -or @($stems[$_]) -ccontains $name })
        if ($stem.Count -eq 0) { Stop-Usage ($path + ' is no file of a recording') }
        Test-Folder $folder @($stem[0])
    }
}

[Console]::Out.WriteLine('')
[Console]::Out.WriteLine(('{0} intact, {1} altered, {2} missing, {3} cannot be checked' -f $Counts['intact'],
        $Counts['ALTERED'], $Counts['MISSING'], $Counts['CANNOT BE CHECKED']))
foreach ($one in ($Fingerprints | Select-Object -Unique)) {
    [Console]::Out.WriteLine('certificate: SHA-256 ' + $one)
}
if ($Fingerprints.Count -gt 0) {
    [Console]::Out.WriteLine('Compare it with the one that was noted when the recorder was installed.')
}
if ($Counts['ALTERED'] + $Counts['MISSING'] -gt 0) { exit 1 }
if ($Counts['CANNOT BE CHECKED'] -gt 0 -or $Counts['intact'] -eq 0) { exit 2 }
exit 0
