"""The sources whose graphs are tested: all but `mapped`, which needs a file."""

SOURCES = ("simulator", "handbook", "berka", "taiwan", "karlan_zinman")
