# SPDX-License-Identifier: ISC
# omertad on a system: program, guest image recipe, service unit, manual pages.

.PHONY: install-daemon
install: install-daemon
install-daemon: $(BUILD)/omertad $(BUILD)/private-libvirtd $(BUILD)/omerta-agent
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/libexec/omerta/image \
	    $(DESTDIR)$(PREFIX)/share/man/man5 $(DESTDIR)$(PREFIX)/share/man/man7 \
	    $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	    $(DESTDIR)/etc/omertad/omertad.conf.d
	install -m 755 $(BUILD)/omertad $(DESTDIR)$(PREFIX)/sbin/
	install -m 755 $(BUILD)/private-libvirtd $(BUILD)/omerta-agent $(DESTDIR)$(PREFIX)/libexec/omerta/
	install -m 755 vm/image/build.sh $(DESTDIR)$(PREFIX)/libexec/omerta/image/
	install -m 644 vm/image/packages $(DESTDIR)$(PREFIX)/libexec/omerta/image/
	install -m 644 dist/omertad.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/omertad
	for page in docs/man/*.[578]; do \
	    install -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/; done
	[ -f $(DESTDIR)/etc/omertad/omertad.conf ] || \
	    $(BUILD)/omertad config generate >$(DESTDIR)/etc/omertad/omertad.conf
	if [ -d /run/systemd/system ] || [ -n "$(DESTDIR)" ]; then \
	    install -D -m 644 dist/omertad.service $(DESTDIR)/etc/systemd/system/omertad.service; \
	    install -D -m 644 dist/omertad.sysusers $(DESTDIR)/usr/lib/sysusers.d/omertad.conf; \
	    install -D -m 644 dist/omertad.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/omertad.conf; fi
