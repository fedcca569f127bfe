"""Git as Runstream runs it: the command, a server of repositories, mirrors of others, saved working trees."""
