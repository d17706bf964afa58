# make demo: see it work.  make test: check everything.  make bench: compare with keepalived.
# All install the Debian packages that they need. ARGS="..." hands options to the demo or the bench, whose
# standard output is all that comes out there: make itself prints nothing.
TARGET  := $(or $(CARGO_TARGET_DIR),target)
BUOY    := $(TARGET)/release/buoy
PREFIX  ?= /usr
DESTDIR ?=

# A plain `su` leaves these out; ip, nginx and keepalived live there.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: demo test bench release install

demo: release
	@scripts/packages.sh nginx:nginx-light ip:iproute2 curl:curl
	@$(BUOY) lab demo $(ARGS)

test:
	@scripts/test.sh

bench: release
	@scripts/packages.sh nginx:nginx-light keepalived:keepalived ip:iproute2
	@$(BUOY) lab bench $(ARGS)

release:
	@scripts/packages.sh cc:gcc /usr/include/stdlib.h:libc6-dev
	@cargo build --release --bin buoy

install: release
	install -D -m 755 $(BUOY) $(DESTDIR)$(PREFIX)/bin/buoy
	install -D -m 644 packaging/buoy.service $(DESTDIR)$(PREFIX)/lib/systemd/system/buoy.service
	install -d -m 755 $(DESTDIR)/etc/buoy
